#!/usr/bin/env bash
# The pooler_output of FlavaModel.get_text_features and get_image_features is not pooled.
#
# Versions: transformers 5.23.0, torch 2.13.0, Python 3.11.
#
# In version 5 the get_*_features methods return an output whose pooler_output is the projected vector
# of the text or the image, [B, D], as for CLIPModel.
#
# Seen: for FlavaModel it is the projection of every token, [B, L, D]. The vector of the contrastive
# loss is that of the first token; a mean over the tokens, or a product that broadcasts over them,
# runs without an error and compares something else.
#
# What to do: take pooler_output[:, 0].
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    transformers==5.23.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
import transformers as t

sizes = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
image = {**sizes, "image_size": 16, "patch_size": 8}
text = {**sizes, "vocab_size": 20, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
flava = t.FlavaConfig(
    image_config=image, text_config=text, multimodal_config=sizes, projection_dim=8, hidden_size=16
)
clip = t.CLIPConfig(text_config=text, vision_config=image, projection_dim=8)
words, pixels, shapes = torch.tensor([[1, 5, 2]]), torch.rand(1, 3, 16, 16), {}
for name, model in (("flava", t.FlavaModel(flava)), ("clip", t.CLIPModel(clip))):
    model.eval()
    found = model.get_text_features(input_ids=words), model.get_image_features(pixel_values=pixels)
    shapes[name] = [tuple(x.pooler_output.shape) for x in found]
    print(name, "text and image:", *shapes[name])
sys.exit(0 if shapes == {"flava": [(1, 3, 8), (1, 5, 8)], "clip": [(1, 8), (1, 8)]} else 1)
PY
