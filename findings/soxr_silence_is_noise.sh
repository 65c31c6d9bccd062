#!/usr/bin/env bash
# soxr: digital silence in int16 is no longer silent after resampling.
#
# Versions: soxr 1.1.0, numpy 2.4.6, Python 3.11.
#
# Resampling zeros is expected to give zeros, and int16 to give the rounded result of float32.
#
# Seen: libsoxr adds dither to int16 output, and the Python package has no argument that switches it off. Zeros become
# -1, 0 and 1 (23 % of them are not 0), a constant 1000 becomes 999 to 1001. In float32 zeros stay 0. A log-mel
# spectrogram of silence has a noise floor then instead of its epsilon, and a test for empty clips (not x.any()) fails.
#
# What to do: resample float32, and round oneself.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check soxr==1.1.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import soxr

silence = np.zeros(48_000, np.int16)
resampled = soxr.resample(silence, 48_000, 16_000)
values, counts = np.unique(resampled, return_counts=True)
print(f"zeros in int16: {dict(zip(values.tolist(), counts.tolist(), strict=True))}")
level = soxr.resample(silence + np.int16(1000), 48_000, 16_000)[4000:-4000]
print(f"a constant 1000, away from the ends: {level.min()} to {level.max()}")
floats = soxr.resample(silence.astype(np.float32), 48_000, 16_000)
print(f"zeros in float32: {floats.min()} to {floats.max()}")
noise = values.tolist() == [-1, 0, 1] and 0.1 < (resampled != 0).mean() < 0.4
sys.exit(0 if noise and np.ptp(level) > 0 and not floats.any() else 1)
PY
