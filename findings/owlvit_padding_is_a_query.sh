#!/usr/bin/env bash
# OwlViTProcessor pads a short list of texts with queries that the model does not mask.
#
# Versions: transformers 5.23.0, torch 2.13.0, Python 3.11.
#
# Images may have lists of texts of several lengths; the model masks what the processor has added, with
# query_mask = input_ids[..., 0] > 0.
#
# Seen: the processor fills the list with the text " ". Its first id is that of <|startoftext|>, as of every
# text, so the mask is all true and the logits of the added query are ordinary numbers: the image with one
# text also gets boxes of class 1, which it does not have. With rows of zeros in their place the mask works and
# their logits are the lowest number of the dtype.
#
# What to do: set input_ids of the added rows to 0, or drop classes past the number of each image's texts.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    transformers==5.23.0 torch==2.13.0 numpy==2.4.6 pillow==13.0.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import json
import sys

import torch
import transformers as t

words = [*"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
words += ["<|startoftext|>", "<|endoftext|>"]
with open("vocab.json", "w") as file:
    json.dump({"!": 0} | {word: 1 + i for i, word in enumerate(words)}, file)
with open("merges.txt", "w") as file:
    file.write("#version: 0.2\n")
tokenizer = t.CLIPTokenizer.from_pretrained(".", pad_token="!", model_max_length=16)
processor = t.OwlViTProcessor(t.OwlViTImageProcessorPil(), tokenizer)
rows = processor(text=[["cat", "dog"], ["bus"]], return_tensors="pt")
ids = rows["input_ids"]
print("first ids", ids[:, 0].tolist(), "last row", ids[-1].tolist())

tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
config = t.OwlViTConfig(
    text_config=tower | {"num_attention_heads": 2, "vocab_size": 64},
    vision_config=tower | {"num_attention_heads": 2, "image_size": 8, "patch_size": 4},
    projection_dim=16,
)
torch.manual_seed(0)
model = t.OwlViTForObjectDetection(config).eval()
pixels = torch.randn(2, 3, 8, 8)


def added(ids):
    """The logits of the second query of the second image, which has one text."""
    with torch.no_grad():
        found = model(input_ids=ids, pixel_values=pixels, attention_mask=rows["attention_mask"])
    return found.logits[1, :, 1]


as_given = added(ids)
ids = ids.clone()
ids[-1] = 0
masked = added(ids)
print("added query:", as_given.tolist(), "with zeros:", masked.tolist())
ok = bool((rows["input_ids"][:, 0] > 0).all()) and bool((as_given.abs() < 100).all())
sys.exit(0 if ok and bool((masked < -1e30).all()) else 1)
PY
