#!/usr/bin/env bash
# Loud Ogg audio that is read as int16 has clicks: samples over 1 come back with the other sign.
#
# Versions: soundfile 0.14.0 (its wheel brings libsndfile 1.2.2), numpy 2.4.6, Python 3.11.
#
# A lossy codec overshoots: music that was mastered to full scale decodes to a little more than 1. As int16 such
# samples are expected to be clipped to 32,767, which is what MP3 gives; soundfile also asks libsndfile for clipping
# (SFC_SET_CLIPPING) when it opens a file.
#
# Seen: the readers of Vorbis and Opus scale to 32,767 and round into 16 bits without a limit, so that 1.03 becomes
# about -31,800. Of a second of a clipped 440 Hz tone at 0.98 of full scale 703 samples change their sign with Vorbis
# and 1,269 with Opus, about half as many as int32. As floats the same files are right, and quiet ones always are. Open
# as libsndfile issue 194 since 2017.
#
# What to do: read floats, clip, and convert.
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
import soundfile as sf

rate = 16_000
tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
loud, quiet = np.clip(2 * tone, -0.98, 0.98), 0.3 * tone


def flipped(samples, form, subtype, dtype):
    """How many samples have another sign as integers, and the peak of the floats."""
    file = io.BytesIO()
    sf.write(file, samples, rate, format=form, subtype=subtype)
    floats, integers = (sf.read(io.BytesIO(file.getvalue()), dtype=d)[0] for d in ("float32", dtype))
    return int((np.sign(integers.astype(np.int64)) * np.sign(floats) < 0).sum()), float(np.abs(floats).max())


found = {}
for form, subtype in (("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")):
    counts, peak = zip(*(flipped(loud, form, subtype, dtype) for dtype in ("int16", "int32")), strict=True)
    still = flipped(quiet, form, subtype, "int16")[0]
    found[subtype] = peak[0] > 1 and still == 0 and min(counts) > 100, max(counts)
    print(f"{subtype}: peak {peak[0]:.3f}, other sign in int16 and int32 {counts} of {rate}, of a quiet tone {still}")
ogg = found["VORBIS"][0] and found["OPUS"][0]
sys.exit(0 if ogg and found["MPEG_LAYER_III"][1] == 0 else 1)
PY
