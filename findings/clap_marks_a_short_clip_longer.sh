#!/usr/bin/env bash
# ClapFeatureExtractor declares a random short clip of each batch to be a long one, and so changes its embedding.
#
# Versions: transformers 5.23.0, torch 2.13.0, numpy 2.4.6, Python 3.11.
#
# `is_longer` says which clips are longer than max_length_s; with truncation "fusion", the default, the model adds the
# crops of these. Of a batch of short clips it is expected to be all false, and an embedding a function of its clip.
#
# Seen: if no clip is longer, one is drawn by np.random and marked. Its spectrograms are like any short clip's, but the
# model sends it through its fusion layers and the others not: with random weights the first clip's embedding begins
# with 0.029, 0.032 if it was drawn and with 0.086, 0.005 if not. A clip alone is always drawn. So retrieval scores
# depend on the seed, the size of a batch and the neighbors in it. (The authors' own model draws one as well.)
#
# What to do: set is_longer after the extractor, to zeros for all short clips, in the index as in the queries.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import torch
from transformers import ClapAudioConfig, ClapAudioModelWithProjection, ClapFeatureExtractor

torch.manual_seed(0)
extractor = ClapFeatureExtractor(max_length_s=1)
clips = list(np.random.default_rng(0).normal(size=(3, 24_000)))  # half a second each
small = {"num_mel_bins": 64, "window_size": 2, "patch_embeds_hidden_size": 8, "hidden_size": 16, "projection_dim": 8}
small |= {"depths": [1, 1], "num_attention_heads": [1, 2], "enable_fusion": True}
model = ClapAudioModelWithProjection(ClapAudioConfig(**small)).eval()


def embedded(clips, seed):
    np.random.seed(seed)
    inputs = extractor(clips, sampling_rate=48_000, return_tensors="pt")
    with torch.no_grad():
        return inputs, model(**inputs).audio_embeds


marked, of_first, spectrograms = [], {}, []
for seed in range(6):
    inputs, vectors = embedded(clips, seed)
    drawn = inputs["is_longer"].flatten().tolist()
    print(f"seed {seed}: is_longer {drawn}, the first clip's embedding begins with {vectors[0, :2].tolist()}")
    marked.append(drawn)
    of_first.setdefault(drawn[0], []).append(vectors[0])
    spectrograms.append(inputs["input_features"])
alone = all(embedded(clips[:1], seed)[0]["is_longer"].item() for seed in range(3))
one_each = all(sum(drawn) == 1 for drawn in marked) and len({tuple(drawn) for drawn in marked}) > 1
equal_inputs = all(torch.equal(x, spectrograms[0]) for x in spectrograms)
moved = float((of_first[True][0] - of_first[False][0]).abs().max())
print(f"an element of it moves by {moved:.3f}")
sys.exit(0 if one_each and equal_inputs and alone and moved > 0.01 else 1)
PY
