#!/usr/bin/env bash
# VectorQuantize's gradient is not the straight-through one.
#
# Versions: vector-quantize-pytorch 1.32.0, torch 2.13.0, Python 3.11.
#
# A VQ-VAE copies the gradient of the quantized vectors to the encoder unchanged (van den Oord et al. 2017,
# section 3.2), and that is what the class is used for.
#
# Seen: by default the gradient is rotated and scaled by the map that takes each vector to its code
# (`rotation_trick`, Fifty et al. 2024): the gradient of a sum of the outputs is not a tensor of ones. With
# rotation_trick=False it is. Nothing in the forward pass tells the two apart.
#
# What to do: set rotation_trick explicitly, above all when two implementations are compared.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    vector-quantize-pytorch==1.32.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
from vector_quantize_pytorch import VectorQuantize

ones = {}
for name, settings in (("default", {}), ("rotation_trick=False", {"rotation_trick": False})):
    torch.manual_seed(0)
    layer = VectorQuantize(dim=4, codebook_size=8, **settings).train()
    x = torch.randn(1, 5, 4, requires_grad=True)
    layer(x)[0].sum().backward()
    print(name, x.grad[0, :2].tolist())
    ones[name] = torch.allclose(x.grad, torch.ones_like(x), atol=1e-5)
sys.exit(0 if not ones["default"] and ones["rotation_trick=False"] else 1)
PY
