#!/usr/bin/env bash
# PriorTransformer is causal only if it is given a mask of the text.
#
# Versions: diffusers 0.42.0, torch 2.13.0, Python 3.11.
#
# The prior of DALL-E 2 is a causal transformer, and diffusers' module holds a buffer
# `causal_attention_mask`. Its argument `attention_mask` says which text tokens are valid and may be left
# out.
#
# Seen: without `attention_mask` no mask at all is used, the causal one included: the output is that of the
# same model with its causal mask set to zero, and differs by a tenth from the output with a mask of ones,
# which should mean the same.
#
# What to do: always give a mask, of ones where every token is valid.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    diffusers==0.42.0 transformers==5.23.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
from diffusers import PriorTransformer

torch.manual_seed(0)
size = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "embedding_dim": 16}
model = PriorTransformer(**size, num_embeddings=5, additional_embeddings=4).eval()
inputs = {
    "hidden_states": torch.randn(1, 16),
    "timestep": 3,
    "proj_embedding": torch.randn(1, 16),
    "encoder_hidden_states": torch.randn(1, 5, 16),
}
ones = torch.ones(1, 5, dtype=torch.bool)


def run(**more):
    with torch.no_grad():
        return model(**inputs, **more).predicted_image_embedding


without, causal = run(), run(attention_mask=ones)
model.causal_attention_mask.zero_()
free = run(attention_mask=ones)
print("no mask and a mask of ones differ by", float((without - causal).abs().max()))
print("no mask and no causal mask differ by", float((without - free).abs().max()))
same = torch.allclose(without, free, atol=1e-6)
sys.exit(0 if same and (without - causal).abs().max() > 1e-2 else 1)
PY
