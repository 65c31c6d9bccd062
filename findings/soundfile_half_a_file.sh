#!/usr/bin/env bash
# Half of a sound file is read as a whole, shorter one.
#
# Versions: soundfile 0.14.0 (libsndfile 1.2.2), numpy 2.4.6, Python 3.11.
#
# A download or a copy that stopped leaves the first half of a file. Its header still tells the number of
# samples of the whole, so one expects an error, as from image decoders.
#
# Seen: WAV, AIFF, AU, W64 and RF64 give about 7,980 of 16,000 samples, and `info` says that there are no more:
# libsndfile replaces the header's number by what the size of the file allows. Ogg Vorbis gives no sample at all
# and `info` 0 frames, also without an error. FLAC, Opus and CAF raise.
#
# What to do: compare the number in the header with the size of the file oneself, or keep checksums.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import io
import sys

import numpy as np
import soundfile

sound = 0.1 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
kinds = ["WAV", "AIFF", "AU", "W64", "RF64", "OGG VORBIS", "FLAC", "OGG OPUS", "CAF"]
found = {}
for kind in kinds:
    form, _, subtype = kind.partition(" ")
    whole = io.BytesIO()
    soundfile.write(whole, sound, 16_000, format=form, subtype=subtype or "PCM_16")
    half = whole.getvalue()[: len(whole.getvalue()) // 2]
    try:
        found[kind] = (soundfile.info(io.BytesIO(half)).frames, len(soundfile.read(io.BytesIO(half))[0]))
    except soundfile.LibsndfileError:
        found[kind] = "an error"
    print(f"{kind}: {found[kind]}")
shorter = all(found[k] != "an error" and 7_900 < found[k][0] == found[k][1] < 8_000 for k in kinds[:5])
raised = all(found[k] == "an error" for k in kinds[6:])
sys.exit(0 if shorter and found["OGG VORBIS"] == (0, 0) and raised else 1)
PY
