#!/usr/bin/env bash
# safetensors.numpy cannot load the bytes of a bfloat16 array that it has saved itself.
#
# Versions: safetensors 0.8.0, ml_dtypes 0.6.0, numpy 2.4.6, Python 3.11.
#
# Checkpoints of JAX are often bfloat16, which NumPy knows by way of ml_dtypes.
#
# Seen: `save` and `save_file` accept such an array and write "BF16" into the header. `load` of these very bytes ends in
# KeyError: 'BF16'; `load_file` and `safe_open`, which go another way, return ml_dtypes' bfloat16.
#
# What to do: write a file and read it by load_file or safe_open(path, framework="numpy").
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 ml_dtypes==0.6.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import ml_dtypes
import numpy as np
from safetensors import safe_open
from safetensors.numpy import load, load_file, save, save_file

array = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)


def outcome(call):
    try:
        return str(call()["x"].dtype)
    except Exception as error:
        return repr(error)


save_file({"x": array}, "x.safetensors")
with safe_open("x.safetensors", framework="numpy") as file:
    opened = file.get_tensor("x")
found = [outcome(lambda: load(save({"x": array}))), outcome(lambda: load_file("x.safetensors"))]
print("load:", found[0], "| load_file:", found[1], "| safe_open:", opened.dtype, np.array_equal(opened, array))
sys.exit(0 if found == ["KeyError('BF16')", "bfloat16"] and opened.dtype == array.dtype else 1)
PY
