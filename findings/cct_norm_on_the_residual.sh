#!/usr/bin/env bash
# A block of the Compact Convolutional Transformer is not pre-norm: its residual stream passes through a LayerNorm.
#
# Versions: vit-pytorch 1.26.14, torch 2.13.0, Python 3.11.
#
# The paper (Hassani et al. 2021) describes ViT's encoder, and the layer has a `pre_norm`, so one expects
# x + attention(norm(x)), then x + mlp(norm(x)), where a block whose attention and MLP return zero is the identity.
#
# Seen: with both branches zero the block returns LayerNorm(x): the second norm's output replaces the residual stream
# before the MLP is added to it (as in the authors' own repository, which this follows). A pre-norm block with the
# same parameters loads without an error, since names and shapes are equal, and computes something else.
#
# What to do: x = x + attention(pre_norm(x)); x = norm1(x); x = x + mlp(x).
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check einops==0.8.2 torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps vit-pytorch==1.26.14
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import importlib.metadata
import importlib.util
import sys

import torch

# The module alone: the package would also want torchvision.
path = importlib.metadata.distribution("vit-pytorch").locate_file("vit_pytorch/cct.py")
spec = importlib.util.spec_from_file_location("cct", path)
cct = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cct)

torch.manual_seed(0)
block = cct.TransformerEncoderLayer(d_model=8, nhead=2, dim_feedforward=16).eval()
for part in (block.self_attn.proj, block.linear2):  # the last product of each branch
    torch.nn.init.zeros_(part.weight)
    torch.nn.init.zeros_(part.bias)
x = 100 * torch.randn(2, 3, 8)
with torch.no_grad():
    found = block(x)
    normalized = torch.nn.functional.layer_norm(x, (8,))
print(f"largest input {x.abs().max():.0f}, largest output {found.abs().max():.2f}")
sys.exit(0 if torch.allclose(found, normalized, atol=1e-5) and not torch.allclose(found, x) else 1)
PY
