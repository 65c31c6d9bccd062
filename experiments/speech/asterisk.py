"""Whisper on Asterisk's spoken prompts, beside a reference with the same weights.

    for l in en es fr it ru; do apt-get download asterisk-core-sounds-$l asterisk-core-sounds-$l-wav
    done; for f in *.deb; do dpkg -x $f sounds; done
    python experiments/speech/asterisk.py prepare sounds DATA
    python experiments/speech/asterisk.py ours DATA --model=MODEL --name=base --language=fr
    REFERENCE experiments/speech/reference.py DATA --model=MODEL --name=base --language=fr
    python experiments/speech/asterisk.py score DATA > experiments/whisper_asterisk_table.md

`prepare` writes every prompt with a transcript at 16 kHz, so that both read the same samples.
`ours` and reference.py (which runs in an environment with ctranslate2 or transformers) decode
greedily, with timestamps and without thresholds, and append to DATA; both continue where they were
stopped. `score` prints how many token sequences are identical, and the error rates. The model is a
CTranslate2 folder, or for transformers what `ours --save=FOLDER` makes of it.
"""

import argparse
import gzip
import json
import re
import sys
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmjax import pretrained
from mmjax.data.transforms import audio_ops, spectrogram
from mmjax.evals.metrics import transcripts, word_errors
from mmjax.speech.fallback import Thresholds
from mmjax.speech.recording import RATE
from mmjax.transcribe import make_decoder, open_model

VOICES = {
    "en": "en_US_f_Allison",
    "es": "es_MX_f_Allison",
    "fr": "fr_CA_f_June",
    "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
}


def prepare(sounds, data):
    """Every prompt as DATA/LANGUAGE/ID.wav, and DATA/prompts.jsonl."""
    rows = []
    for language, voice in VOICES.items():
        folder = sounds / "usr/share/asterisk/sounds" / voice
        texts = sounds / f"usr/share/doc/asterisk-core-sounds-{language}"
        (texts,) = texts.glob("core-sounds-*.txt*")
        raw = texts.read_bytes()
        raw = gzip.decompress(raw) if texts.suffix == ".gz" else raw
        found = []
        for line in raw.decode("utf-8").splitlines():
            name, colon, text = line.partition(":")
            path, text = folder / f"{name.strip()}.wav", text.strip()
            # A transcript in brackets describes a sound.
            if not colon or line.startswith(";") or not path.is_file() or not text:
                continue
            if re.fullmatch(r"[\[(<].*[\])>]", text):
                continue
            found.append({"language": language, "id": name.strip(), "text": text})
        # Whole sentences first, single digits and letters last.
        for row in sorted(found, key=lambda r: ("/" in r["id"], r["id"])):
            to = data / language / f"{row['id'].replace('/', '_')}.wav"
            to.parent.mkdir(parents=True, exist_ok=True)
            waveform = audio_ops.decode_at(folder / f"{row['id']}.wav", RATE)[: 30 * RATE]
            soundfile.write(to, waveform, RATE, subtype="FLOAT")
            rows.append({**row, "file": str(to.relative_to(data))})
        print(f"{language}: {len(found)} prompts", file=sys.stderr)
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    (data / "prompts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_lines(path):
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def ours(args):
    """Append our tokens of prompts that have none to DATA/NAME.LANGUAGE.TASK.ours.jsonl."""
    loaded = open_model(args.model)
    if args.save:
        pretrained.save_pretrained(loaded, args.save)
    decoder = make_decoder(
        loaded,
        task=args.task,
        language=args.language,
        batch_size=args.batch_size,
        thresholds=Thresholds((0.0,)),
        int8=args.int8,
    )
    path = args.data / f"{args.name}.{args.language}.{args.task}.ours.jsonl"
    done = {row["id"] for row in read_lines(path)}
    rows = [r for r in read_lines(args.data / "prompts.jsonl") if r["language"] == args.language]
    rows = [row for row in rows[: args.count] if row["id"] not in done]
    for at in range(0, len(rows), args.batch_size):
        batch = rows[at : at + args.batch_size]
        features = []
        for row in batch:
            waveform, _ = soundfile.read(args.data / row["file"], dtype="float32")
            waveform = np.pad(waveform, (0, 30 * RATE - len(waveform)))
            features.append(spectrogram.whisper(waveform, decoder.programs.audio_shape[1]))
        prompts = [[] for _ in batch]
        heard = decoder.listen(features, prompts)
        found = decoder.transcribe(heard, prompts, [args.language] * len(batch))
        with path.open("a", encoding="utf-8") as file:
            for row, result in zip(batch, found):
                line = {"id": row["id"], "tokens": result.tokens, "text": result.text}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        print(f"{at + len(batch)} of {len(rows)}", file=sys.stderr, flush=True)


def score(data):
    """A table of all pairs of ours and a reference in DATA, and the differences."""
    rows = read_lines(data / "prompts.jsonl")
    texts = {(row["language"], row["id"]): row["text"] for row in rows}
    print("| model | prompts | task | identical | WER ours | WER reference | S/D/I ours |")
    print("|---|---|---|---|---|---|---|")
    differences = []
    for path in sorted(data.glob("*.ours.jsonl")):
        name, language, task, _, _ = path.name.rsplit(".", 4)
        reference = path.with_name(path.name.replace(".ours.", ".reference."))
        theirs = {row["id"]: row for row in read_lines(reference)}
        mine = {row["id"]: row for row in read_lines(path) if row["id"] in theirs}
        if not mine:
            continue
        same = sum(mine[i]["tokens"] == theirs[i]["tokens"] for i in mine)
        right = language if task == "transcribe" else "en"
        known = [i for i in mine if (right, i) in texts]
        clean = transcripts.english if right == "en" else transcripts.basic
        wanted = [clean(texts[right, i]) for i in known]
        errors = [
            word_errors.word_errors(wanted, [clean(side[i]["text"]) for i in known])
            for side in (mine, theirs)
        ]
        rates = " | ".join(f"{100 * e.rate:.2f} %" for e in errors)
        counts = f"{errors[0].substitutions}/{errors[0].deletions}/{errors[0].insertions}"
        print(
            f"| {name} | {len(mine)} {language} | {task} | {same} ({100 * same / len(mine):.1f} %) "
            f"| {rates} | {counts} |"
        )
        differences += [
            (name, language, task, i, mine[i]["text"], theirs[i]["text"])
            for i in mine
            if mine[i]["tokens"] != theirs[i]["tokens"]
        ]
    print("\nPrompts with different tokens (ours, then the reference):\n")
    for *key, a, b in differences:
        print(f"- {' '.join(key)}: “{a}” / “{b}”")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parts = parser.add_subparsers(dest="action", required=True)
    one = parts.add_parser("prepare")
    one.add_argument("sounds", type=Path)
    two, three = parts.add_parser("ours"), parts.add_parser("score")
    for part in (one, two, three):
        part.add_argument("data", type=Path)
    two.add_argument("--model", required=True)
    two.add_argument("--name", required=True)
    two.add_argument("--language", default="en")
    two.add_argument("--task", default="transcribe")
    two.add_argument("--count", type=int, default=1000)
    two.add_argument("--batch_size", type=int, default=8)
    two.add_argument("--int8", action="store_true")
    two.add_argument("--save", help="also save the model for transformers in this folder")
    args = parser.parse_args()
    if args.action == "prepare":
        prepare(args.sounds, args.data)
    elif args.action == "ours":
        ours(args)
    else:
        score(args.data)


if __name__ == "__main__":
    main()
