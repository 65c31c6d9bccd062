"""The reference side of asterisk.py, in an environment with torch, transformers and ctranslate2.

    PYTHON experiments/speech/reference.py DATA --model=CT2_FOLDER --name=base --language=fr
    PYTHON experiments/speech/reference.py DATA --engine=transformers --model=FOLDER ...
    PYTHON experiments/speech/reference.py DATA --bleu

Features are those of transformers in every case; decoding is greedy, with timestamps. --bleu scores
all translations with sacrebleu, against the English prompts of the same id.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import soundfile


def read_lines(path):
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def by_ctranslate2(args, tokenizer):
    """features [B, M, F] -> token ids, by CTranslate2 in fp32."""
    import ctranslate2

    kind = "int8" if args.int8 else "float32"
    model = ctranslate2.models.Whisper(args.model, compute_type=kind, intra_threads=args.threads)
    names = ["<|startoftranscript|>"]
    if model.is_multilingual:
        names += [f"<|{args.language}|>", f"<|{args.task}|>"]
    prompt = [tokenizer.token_to_id(name) for name in names]

    def decode(features):
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(features))
        prompts = [prompt] * len(features)
        found = model.generate(view, prompts, beam_size=1, max_length=448)
        return [row.sequences_ids[0] for row in found]

    return decode


def by_transformers(args, tokenizer):
    """The same by transformers in fp32."""
    import torch
    from transformers import WhisperForConditionalGeneration

    torch.set_num_threads(args.threads)
    model = WhisperForConditionalGeneration.from_pretrained(args.model).eval()
    more = {}
    if model.generation_config.is_multilingual:
        more = {"language": args.language, "task": args.task}

    def decode(features):
        with torch.no_grad():
            found = model.generate(
                torch.from_numpy(features), return_timestamps=True, do_sample=False, **more
            )
        return found.tolist()

    return decode


def run(args):
    """Append tokens of prompts that have none to DATA/NAME.LANGUAGE.TASK.reference.jsonl."""
    from tokenizers import Tokenizer
    from transformers import WhisperFeatureExtractor

    extract = WhisperFeatureExtractor(feature_size=args.mels)
    tokenizer = Tokenizer.from_file(str(Path(args.model) / "tokenizer.json"))
    end = tokenizer.token_to_id("<|endoftext|>")
    first = tokenizer.token_to_id("<|notimestamps|>") + 1
    engine = {"ctranslate2": by_ctranslate2, "transformers": by_transformers}[args.engine]
    decode = engine(args, tokenizer)
    path = args.data / f"{args.name}.{args.language}.{args.task}.reference.jsonl"
    done = {row["id"] for row in read_lines(path)}
    rows = [r for r in read_lines(args.data / "prompts.jsonl") if r["language"] == args.language]
    rows = [row for row in rows[: args.count] if row["id"] not in done]
    for at in range(0, len(rows), args.batch_size):
        batch = rows[at : at + args.batch_size]
        waveforms = [soundfile.read(args.data / r["file"], dtype="float32")[0] for r in batch]
        features = extract(waveforms, sampling_rate=16_000, return_tensors="np").input_features
        with path.open("a", encoding="utf-8") as file:
            for row, ids in zip(batch, decode(features.astype(np.float32))):
                ids = [i for i in ids if i < end or i >= first]  # without prompt and end
                text = tokenizer.decode([i for i in ids if i < end]).strip()
                line = {"id": row["id"], "tokens": ids, "text": text}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        print(f"{at + len(batch)} of {len(rows)}", file=sys.stderr, flush=True)


def bleu(data):
    """A table of BLEU and chrF of all translations."""
    import sacrebleu

    rows = read_lines(data / "prompts.jsonl")
    english = {row["id"]: row["text"] for row in rows if row["language"] == "en"}
    print("| model | prompts | side | BLEU | chrF |\n|---|---|---|---|---|")
    for path in sorted(data.glob("*.translate.*.jsonl")):
        name, language, _, side, _ = path.name.rsplit(".", 4)
        found = [row for row in read_lines(path) if row["id"] in english]
        texts, wanted = [r["text"] for r in found], [[english[r["id"]] for r in found]]
        scores = [
            f"{f(texts, wanted).score:.1f}" for f in (sacrebleu.corpus_bleu, sacrebleu.corpus_chrf)
        ]
        print(f"| {name} | {len(found)} {language} | {side} | {' | '.join(scores)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--name")
    parser.add_argument("--engine", default="ctranslate2", choices=("ctranslate2", "transformers"))
    parser.add_argument("--language", default="en")
    parser.add_argument("--task", default="transcribe")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--mels", type=int, default=80)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--bleu", action="store_true")
    args = parser.parse_args()
    if args.bleu:
        bleu(args.data)
    else:
        run(args)


if __name__ == "__main__":
    main()
