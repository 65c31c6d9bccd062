"""Transcription of English speech on CPU: seconds of audio per second, ours beside its peers.

    python experiments/benchmarks/transcribe.py DATA --ct2=whisper-base --hf=whisper-base-hf \
        --peers=PYTHON --minutes=30
    ... --batch_size=8      # our batches, transformers' pipeline, faster-whisper's batched pipeline
    ... --dtype=int8        # ours and faster-whisper

DATA is made by experiments/speech/asterisk.py: its prompts, half a second apart, are one recording.
PYTHON has torch, transformers, openai-whisper and faster-whisper. The model is in a CTranslate2
folder (ours, faster-whisper) and in one of transformers (it, and openai-whisper): `asterisk.py ours
--save` makes it. All decode greedily with timestamps, fall back on higher temperatures by the same
thresholds, and at batch size 1 read the text before a window.

Every contender is a process of its own, loaded, compiled and warmed up; they take turns, and the
ratios are medians of same-round ratios. WER is against the prompts' transcripts.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
from workers import ROOT, Process, answer, peak_memory

CONTENDERS = ("ours", "faster", "transformers", "openai")
RATE, PAUSE = 16_000, 0.5


def recording(data, minutes, path):
    """Write the prompts as one recording at `path`; returns their transcripts."""
    rows = map(json.loads, (data / "prompts.jsonl").read_text(encoding="utf-8").splitlines())
    pieces, texts, total = [], [], 0
    for row in rows:
        if row["language"] != "en" or total >= minutes * 60 * RATE:
            continue
        samples, _ = soundfile.read(data / row["file"], dtype="float32")
        pieces += [samples, np.zeros(round(PAUSE * RATE), np.float32)]
        total += len(samples) + len(pieces[-1])
        texts.append(row["text"])
    soundfile.write(path, np.concatenate(pieces), RATE, subtype="PCM_16")
    return texts


# ---- contenders: a function (path of a recording) -> its text ------------------------------------


def ours(w):
    """mmjax.transcribe, compiled once."""
    from mmjax.speech.recording import Recording
    from mmjax.speech.windows import Transcriber
    from mmjax.transcribe import make_decoder, open_model

    size = w["batch_size"]
    loaded = open_model(w["ct2"])
    decoder = make_decoder(loaded, batch_size=size, int8=w["dtype"] == "int8")
    language = "en"
    transcriber = Transcriber(decoder, language)
    run = transcriber.one_by_one if size == 1 else transcriber.in_batches

    def transcribe(path):
        ((_, found),) = run([(path, Recording(path))])
        return found.text

    return transcribe


def faster(w):
    """faster-whisper."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    model = WhisperModel(w["ct2"], compute_type=w["dtype"], cpu_threads=w["threads"])
    more = {"language": "en", "beam_size": 1}
    if w["batch_size"] > 1:
        model = BatchedInferencePipeline(model)
        more |= {"batch_size": w["batch_size"], "without_timestamps": False}

    def transcribe(path):
        return " ".join(segment.text for segment in model.transcribe(path, **more)[0])

    return transcribe


def transformers(w):
    """WhisperForConditionalGeneration: sequential, or its pipeline with chunks of 30 seconds."""
    import torch
    from transformers import AutoProcessor, WhisperForConditionalGeneration, pipeline

    torch.set_num_threads(w["threads"])
    model = WhisperForConditionalGeneration.from_pretrained(w["hf"]).eval()
    processor = AutoProcessor.from_pretrained(w["hf"])
    more = {}
    if model.generation_config.is_multilingual:
        more = {"language": "en", "task": "transcribe"}
    if w["batch_size"] > 1:
        recognize = pipeline(
            "automatic-speech-recognition",
            model=model,
            tokenizer=processor.tokenizer,
            feature_extractor=processor.feature_extractor,
            chunk_length_s=30,
            batch_size=w["batch_size"],
            return_timestamps=True,
        )

        def transcribe_chunks(path):
            samples, _ = soundfile.read(path, dtype="float32")
            given = {"raw": samples, "sampling_rate": RATE}
            return recognize(given, generate_kwargs=more)["text"]

        return transcribe_chunks

    def transcribe(path):
        samples, _ = soundfile.read(path, dtype="float32")
        given = processor(
            samples,
            sampling_rate=RATE,
            return_tensors="pt",
            truncation=False,
            padding="longest",
            return_attention_mask=True,
        )
        if given.input_features.shape[-1] < 3000:  # it pads short ones to a window itself
            given = processor(samples, sampling_rate=RATE, return_tensors="pt")
            given["attention_mask"] = None
        with torch.no_grad():
            ids = model.generate(
                given.input_features,
                attention_mask=given.attention_mask,
                return_timestamps=True,
                condition_on_prev_tokens=True,
                temperature=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
                compression_ratio_threshold=2.4,
                logprob_threshold=-1.0,
                no_speech_threshold=0.6,
                **more,
            )
        return processor.batch_decode(ids, skip_special_tokens=True)[0]

    return transcribe


def openai(w):
    """openai-whisper, with the weights of transformers under its names."""
    import re

    import torch
    import whisper
    from safetensors.torch import load_file

    torch.set_num_threads(w["threads"])
    config = json.loads((Path(w["hf"]) / "config.json").read_text())
    dims = whisper.model.ModelDimensions(
        n_mels=config["num_mel_bins"],
        n_audio_ctx=config["max_source_positions"],
        n_audio_state=config["d_model"],
        n_audio_head=config["encoder_attention_heads"],
        n_audio_layer=config["encoder_layers"],
        n_vocab=config["vocab_size"],
        n_text_ctx=config["max_target_positions"],
        n_text_state=config["d_model"],
        n_text_head=config["decoder_attention_heads"],
        n_text_layer=config["decoder_layers"],
    )
    model = whisper.Whisper(dims).eval()
    names = (
        (r"^model\.", ""),
        (r"\.layers\.", ".blocks."),
        (r"self_attn_layer_norm", "attn_ln"),
        (r"encoder_attn_layer_norm", "cross_attn_ln"),
        (r"final_layer_norm", "mlp_ln"),
        (r"self_attn", "attn"),
        (r"encoder_attn", "cross_attn"),
        (r"q_proj", "query"),
        (r"k_proj", "key"),
        (r"v_proj", "value"),
        (r"out_proj", "out"),
        (r"fc1", "mlp.0"),
        (r"fc2", "mlp.2"),
        (r"encoder\.layer_norm", "encoder.ln_post"),
        (r"decoder\.layer_norm", "decoder.ln"),
        (r"embed_tokens", "token_embedding"),
        (r"(encoder|decoder)\.embed_positions\.weight", r"\1.positional_embedding"),
    )
    tensors = {}
    for name, x in load_file(Path(w["hf"]) / "model.safetensors").items():
        for pattern, new in names:
            name = re.sub(pattern, new, name)
        tensors[name] = x.float()
    tensors.pop("proj_out.weight", None)
    missing = model.load_state_dict(tensors, strict=False).missing_keys
    if set(missing) - {"encoder.positional_embedding"}:
        raise SystemExit(f"The weights lack {missing[0]}.")

    def transcribe(path):
        samples, _ = soundfile.read(path, dtype="float32")
        return model.transcribe(samples, language="en", fp16=False)["text"]

    return transcribe


# ---- the benchmark -------------------------------------------------------------------------------


def serve(name, w):
    """A contender's process: transcribes the recording at every line that comes in."""
    if name == "ours":
        from mmjax.process import runtime

        runtime.prepare()
    make = {"ours": ours, "faster": faster, "transformers": transformers, "openai": openai}
    transcribe = make[name](w)
    transcribe(w["warm"])
    answer({"build": peak_memory()})
    for _ in sys.stdin:
        cpu, start = time.process_time(), time.perf_counter()
        text = transcribe(w["path"])
        wall = time.perf_counter() - start
        answer({"wall": wall, "cpu": time.process_time() - cpu, "rss": peak_memory(), "text": text})


class Contender(Process):
    """The process of a contender."""

    def __init__(self, name, w, peers):
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        }
        env |= {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
        python = sys.executable if name == "ours" else peers
        super().__init__(name, [python, __file__, "--serve", name, json.dumps(w)], env)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--ct2", required=True)
    parser.add_argument("--hf", required=True)
    parser.add_argument("--peers", required=True)
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--dtype", default="float32", choices=("float32", "int8"))
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from mmjax.evals.metrics import transcripts, word_errors

    path, warm = args.data / f"speech_{args.minutes:g}.wav", args.data / "speech_warm.wav"
    recording(args.data, 0.6, warm)
    texts = recording(args.data, args.minutes, path)
    seconds = soundfile.info(path).duration
    w = {n: getattr(args, n) for n in ("ct2", "hf", "dtype", "batch_size", "threads")}
    w |= {"path": str(path), "warm": str(warm)}
    names = args.contenders.split(",")
    if args.dtype == "int8":
        names = [name for name in names if name in ("ours", "faster")]
    if args.batch_size > 1:
        names = [name for name in names if name != "openai"]
    contenders = [Contender(name, w, args.peers) for name in names]
    results = []
    for r in range(args.rounds):
        turn = contenders[r % len(names) :] + contenders[: r % len(names)]
        results.append({contender.name: contender.time() for contender in turn})
    for contender in contenders:
        contender.close()
    print(f"{seconds / 60:.1f} min, {args.dtype}, batch {args.batch_size}, {args.rounds} rounds\n")
    print("| contender | × real time | ours is as fast | CPU seconds | RSS, MiB | WER |")
    print("|---|---|---|---|---|---|")
    wanted = transcripts.english(" ".join(texts))
    for name in names:
        wall, cpu, rss = (
            statistics.median(r[name][key] for r in results) for key in ("wall", "cpu", "rss")
        )
        each = [r[name]["wall"] / r["ours"]["wall"] for r in results] if "ours" in names else [0.0]
        ratio = f"{statistics.median(each):.2f}× ({min(each):.2f} to {max(each):.2f})"
        found = transcripts.english(results[0][name]["text"])
        rate = 100 * word_errors.word_errors([wanted], [found]).rate
        cells = f"{seconds / wall:.2f} | {ratio} | {cpu:.0f} | {rss:.0f} | {rate:.1f} %"
        print(f"| {name} | {cells} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], json.loads(sys.argv[3]))
    else:
        main()
