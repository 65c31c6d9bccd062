#!/usr/bin/env bash
# A FLAC stream whose header says "number of samples unknown" cannot be read by soundfile.
#
# Versions: soundfile 0.14.0 (its wheel brings libsndfile 1.2.2), numpy 2.4.6, Python 3.11.
#
# RFC 9639, section 8.2: in STREAMINFO "a value of 0 here means the number of total samples is
# unknown", which encoders that write to a pipe leave there. The audio frames are complete, and one
# would expect the samples.
#
# Seen: sf.info reports 9223372036854775807 frames; sf.read asks NumPy for an array of that size and
# raises ValueError ("array is too big"); reading in blocks of 1,000 frames raises LibsndfileError
# ("Internal psf_fseek() failed."). With the count in place the same bytes give 5,000 samples.
#
# What to do: write the number of samples into the header (`flac` does when it re-encodes from a
# file), or decode with another library.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import io
import sys

import numpy as np
import soundfile as sf

buffer = io.BytesIO()
tone = 0.5 * np.sin(np.arange(5000) / 20)
sf.write(buffer, tone, 8000, format="FLAC")
known = buffer.getvalue()
assert known[:4] == b"fLaC" and known[4] & 0x7F == 0  # STREAMINFO comes first
unknown = bytearray(known)
unknown[21] &= 0xF0  # the 36 bits of the number of samples
unknown[22:26] = bytes(4)
unknown = bytes(unknown)

print("libsndfile", sf.__libsndfile_version__)
samples, rate = sf.read(io.BytesIO(known))
print("count in place:", samples.shape, rate)
frames = sf.info(io.BytesIO(unknown)).frames
print("count unknown: frames =", frames)
said = []
try:
    sf.read(io.BytesIO(unknown))
except Exception as error:
    said.append(f"{type(error).__name__}: {error}")
try:
    with sf.SoundFile(io.BytesIO(unknown)) as file:
        file.read(1000)
        while len(file.read(1000)):
            pass
except Exception as error:
    said.append(f"{type(error).__name__}: {error}")
print("\n".join(said))
same = samples.shape == (5000,) and frames == 2**63 - 1 and len(said) == 2
sys.exit(0 if same and "too big" in said[0] and "psf_fseek" in said[1] else 1)
PY
