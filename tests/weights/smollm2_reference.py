"""Record what transformers makes of SmolLM2's GGUF file, into smollm2_reference.json.

    python tests/weights/smollm2_reference.py FOLDER/SmolLM2-135M-Instruct.Q4_1.gguf

Needs torch, transformers, gguf and accelerate, which are no dependencies of mmjax; the recorded
file was made with transformers 5.23.0, gguf 0.19.0 and torch 2.13.0.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXTS = (
    "The capital of France is Paris, and 1234 people don't know that it is not Lyon.",
    " two  spaces\n\n\ttabs 日本語 café 🙂",
    "<|im_start|>user\nHi<|im_end|>\n",
    "x=3.14159; y = f(x**2) // 7",
)
EVERY = 4099  # columns of the logits that are kept


def main(path):
    path = Path(path)
    source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32).eval()
    tokens = {text: tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS}
    with torch.inference_mode():
        logits = model(torch.tensor([tokens[TEXTS[0]]])).logits[0]
    record = {
        "text": TEXTS[0],
        "tokens": tokens,
        "every": EVERY,
        "logits": [[round(x, 5) for x in row] for row in logits[:, ::EVERY].tolist()],
        "best": logits.argmax(-1).tolist(),
    }
    out = Path(__file__).with_suffix(".json")
    out.write_text(json.dumps(record, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
