#!/usr/bin/env bash
# torch: antialias=True changes bicubic upsampling, where there is nothing to antialias.
#
# Versions: torch 2.13.0, pillow 13.0.0, numpy 2.4.6, Python 3.11.
#
# A filter against aliasing is wider for downsampling and the same for upsampling: with bilinear interpolation both
# settings of `antialias` agree on a larger size.
#
# Seen: bicubic has two kernels. antialias=False uses Keys' cubic with a = -0.75, as OpenCV, and repeats the edge;
# antialias=True uses a = -0.5, as Pillow, and normalizes the weights inside the image. Of a step from 0 to 1 at twice
# the size the overshoot is 0.105 or 0.070; the second is Pillow's. Vision transformers enlarge their position table by
# this function, some with the flag and some without (DINOv2 has it as a setting): a port with the other one loads
# without an error and is right at the trained size alone.
#
# What to do: for each checkpoint look up the flag, and test at a larger image.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 pillow==13.0.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import torch
from PIL import Image

step = np.repeat(np.array([[0, 0, 0, 1, 1, 1]], np.float32), 6, axis=0)


def enlarged(mode, antialias):
    found = torch.nn.functional.interpolate(torch.tensor(step)[None, None], (12, 12), mode=mode, antialias=antialias)
    return found[0, 0].numpy()


off, on = enlarged("bicubic", False), enlarged("bicubic", True)
pillow = np.asarray(Image.fromarray(step).resize((12, 12), Image.Resampling.BICUBIC))
print(f"overshoot: antialias=False {off.max() - 1:.4f}, True {on.max() - 1:.4f}, Pillow {pillow.max() - 1:.4f}")
same = np.allclose(enlarged("bilinear", False), enlarged("bilinear", True), atol=1e-6)
print(f"bilinear the same with and without: {same}")
differ = np.allclose(off.max() - 1, 0.1055, atol=1e-3) and np.allclose(on.max() - 1, 0.0703, atol=1e-3)
sys.exit(0 if same and differ and np.allclose(on, pillow, atol=1e-5) else 1)
PY
