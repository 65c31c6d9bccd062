#!/usr/bin/env bash
# Idefics3 and SmolVLM give several patches one position on some grids.
#
# Versions: transformers 5.23.0, torch 2.13.0, Python 3.11.
#
# The image tower finds the row and column of each patch by torch.bucketize of fractions of the image.
#
# Seen: for a full square image of n x n patches the fractions meet the boundaries, and rounding puts some
# on the wrong side. With n = 19, 25, 29, 31 or 38 a row number occurs twice and another never: 19 x 19
# patches have 324 different positions instead of 361. The published grids (26, 27, 32) are right.
#
# What to do: number rows and columns by integers; check n when a tower with another image size is trained
# or converted.
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
from transformers import Idefics3VisionConfig
from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionEmbeddings

found = {}
for n in (16, 19, 25, 26, 27, 29, 31, 32, 38):
    size = {"hidden_size": 1, "num_attention_heads": 1, "intermediate_size": 1}
    config = Idefics3VisionConfig(**size, image_size=2 * n, patch_size=2, num_hidden_layers=1)
    embed = Idefics3VisionEmbeddings(config)
    with torch.no_grad():
        embed.patch_embedding.weight.zero_()
        embed.patch_embedding.bias.zero_()
        embed.position_embedding.weight.copy_(torch.arange(n * n).float()[:, None])
        seen = embed(torch.zeros(1, 3, 2 * n, 2 * n), torch.ones(1, n, n, dtype=torch.bool))
    found[n] = len(set(seen.flatten().tolist()))
    print(f"{n} x {n} patches: {found[n]} different positions of {n * n}")
wrong = [n for n, count in found.items() if count != n * n]
sys.exit(0 if wrong == [19, 25, 29, 31, 38] and found[19] == 324 else 1)
PY
