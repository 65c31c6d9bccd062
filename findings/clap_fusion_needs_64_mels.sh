#!/usr/bin/env bash
# ClapFeatureExtractor with truncation "fusion" fails on long clips for every feature_size but 64.
#
# Versions: transformers 5.23.0, torch 2.13.0, Python 3.11.
#
# feature_size is expected to set the number of mel bands for all lengths: it is a documented argument.
#
# Seen: a clip of up to max_length_s gives [4, frames, feature_size]. Of a longer clip the whole
# spectrogram is shrunk to 64 bands, whatever feature_size is, and stacked with three parts that have
# feature_size bands: a ValueError of NumPy about shapes, which names no setting. A data set of short
# clips does not show it.
#
# What to do: keep 64 bands with fusion, or use truncation="rand_trunc".
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

import numpy as np
import transformers as t

rate = 8000
noise = np.random.default_rng(0).normal(size=3 * rate).astype(np.float32)
seen = {}
for bands in (64, 40):
    extractor = t.ClapFeatureExtractor(
        feature_size=bands,
        sampling_rate=rate,
        hop_length=160,
        fft_window_size=512,
        max_length_s=2,
        frequency_max=4000,
        truncation="fusion",
    )
    for seconds in (1, 3):
        try:
            made = extractor(noise[: seconds * rate], sampling_rate=rate)
            seen[bands, seconds] = np.shape(made["input_features"])[1:]
        except ValueError as error:
            seen[bands, seconds] = str(error)
        print(bands, "bands,", seconds, "s:", seen[bands, seconds])
ok = isinstance(seen[40, 3], str) and all(isinstance(seen[k], tuple) for k in seen if k != (40, 3))
sys.exit(0 if ok else 1)
PY
