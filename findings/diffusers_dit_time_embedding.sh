#!/usr/bin/env bash
# The DiT of diffusers does not embed the timestep as the DiT whose weights it holds was trained.
#
# Versions: diffusers 0.42.0, torch 2.13.0, Python 3.11.
#
# facebookresearch/DiT (models.py, TimestepEmbedder) has the frequencies 10000^(-i/128), i = 0..127, and LayerNorm
# with epsilon 1e-6 before attention and before the MLP. DiTTransformer2DModel is the class of the converted
# folders of those weights.
#
# Seen: its frequencies are 10000^(-i/127) (downscale_freq_shift=1), and the norm before the MLP has epsilon 1e-5
# unless the config says otherwise, the one before attention always 1e-6. At timestep 999 the embedding of a
# frequency differs from the original's by up to 2, the whole range of a sine.
#
# What to do: for parity with diffusers use its frequencies; for the model that was trained, and for its published
# FID, the original's.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    diffusers==0.42.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
from diffusers import DiTTransformer2DModel

model = DiTTransformer2DModel(
    num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1,
    sample_size=4, patch_size=2, num_embeds_ada_norm=10,
)
block = model.transformer_blocks[0]
times = torch.tensor([1.0, 100.0, 999.0])
seen = block.norm1.emb.time_proj(times)


def embedding(divisor):
    angles = times[:, None] * 10000 ** (-torch.arange(128) / divisor)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


for divisor in (127, 128):
    differences = (seen - embedding(divisor)).abs().amax(1).tolist()
    print(f"10000^(-i/{divisor}): differs at timesteps 1, 100, 999 by at most", differences)
print("epsilon before attention", block.norm1.norm.eps, "and before the MLP", block.norm3.eps)
shifted = torch.allclose(seen, embedding(127), atol=1e-3)
original = torch.allclose(seen, embedding(128), atol=0.5)
sys.exit(0 if shifted and not original and (block.norm1.norm.eps, block.norm3.eps) == (1e-6, 1e-5) else 1)
PY
