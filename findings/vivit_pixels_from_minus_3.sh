#!/usr/bin/env bash
# VivitImageProcessor's defaults give pixels from -3 to 1.
#
# Versions: transformers 5.23.0, torch 2.13.0, Python 3.11.
#
# A processor's defaults are expected to fit the model: [-1, 1], as a mean and deviation of 0.5 give
# everywhere else in the library.
#
# Seen: with the default offset=True the rescaling by 1/127.5 already subtracts 1, which gives [-1, 1], and
# the default do_normalize=True then subtracts 0.5 and divides by 0.5: black is -3 and white is 1. Nothing in a
# saved preprocessor_config.json shows it: each of the settings looks ordinary.
#
# What to do: compare black and white with what the weights were trained on; to get [-1, 1] leave one of the
# two out (do_normalize=False).
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
import sys

import numpy as np
import transformers as t

frames = [np.full((32, 32, 3), value, np.uint8) for value in (0, 255)]
sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}


def ends(processor, **settings):
    made = np.asarray(processor(**sizes)(frames, return_tensors="np", **settings)["pixel_values"])
    found = round(float(made.min()), 3), round(float(made.max()), 3)
    print(processor.__name__, settings, "black and white:", found)
    return found


ok = ends(t.VivitImageProcessor) == (-3.0, 1.0)
ok &= ends(t.VivitImageProcessor, do_normalize=False) == (-1.0, 1.0)
sys.exit(0 if ok else 1)
PY
