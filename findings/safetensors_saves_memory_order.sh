#!/usr/bin/env bash
# safetensors saves a transposed NumPy array with its elements in the wrong order, without an error.
#
# Versions: safetensors 0.8.0, numpy 2.4.6, Python 3.11.
#
# Kernels of Flax are [in, out], weights of PyTorch [out, in]: whoever converts a checkpoint saves `array.T`. With
# safetensors.torch a tensor that is not contiguous raises a ValueError, and the docstring of safetensors.numpy asks
# for contiguous ones, so one expects an error here as well.
#
# Seen: `save` and `save_file` write the memory of the array as it is, with the shape of the view. What is read back
# has the right shape and the wrong elements: [[0, 3], [1, 4], [2, 5]] becomes [[0, 1], [2, 3], [4, 5]]. Arrays in
# Fortran order and every second column are affected in the same way. A big-endian array, in contrast, is converted.
#
# What to do: numpy.asarray(array, order="C") on every array (ascontiguousarray would turn a scalar into a vector).
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
from safetensors.numpy import load, load_file, save, save_file

kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
views = {"transposed": kernel.T, "Fortran order": np.asfortranarray(kernel), "columns": kernel[:, ::2]}
wrong = []
for name, array in views.items():
    save_file({"x": array}, "x.safetensors")
    for found in (load(save({"x": array}))["x"], load_file("x.safetensors")["x"]):
        print(f"{name}: saved {array.tolist()}, read {found.tolist()}")
        wrong.append(found.shape == array.shape and not np.array_equal(found, array))
right = [np.asarray(x, order="C") for x in (*views.values(), kernel.astype(">f4"))]
kept = all(np.array_equal(load(save({"x": x}))["x"], x) for x in (*right, kernel.astype(">f4")))
sys.exit(0 if all(wrong) and kept else 1)
PY
