#!/usr/bin/env bash
# Writing one SD2 sound into memory leaves a file behind, after which MP3 in memory cannot be read in that folder.
#
# Versions: soundfile 0.14.0 (libsndfile 1.2.2), numpy 2.4.6, Python 3.11.
#
# Sound Designer II keeps its header in a resource fork, a second file. Whoever loops over available_formats() to
# test a reader writes it into a BytesIO and expects that nothing touches the disk.
#
# Seen: libsndfile writes the fork of the nameless stream as "._" into the current folder. From then on it takes any
# nameless stream whose format it does not know by its first bytes for the other half of that file: an MP3 in memory that
# was read before raises "Error opening" now. WAV, FLAC and Ogg are known by their first bytes and still read.
# Without the file all is as before.
#
# What to do: leave SD2 out of such loops, or work in a temporary folder.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6
mkdir "$folder/work"
cd "$folder/work"
"$folder/venv/bin/python" - <<'PY'
import io
import os
import sys

import numpy as np
import soundfile

sound = 0.1 * np.random.default_rng(0).standard_normal(16_000)
files = {}
for form in ("MP3", "WAV", "FLAC", "OGG"):
    memory = io.BytesIO()
    soundfile.write(memory, sound, 16_000, format=form)
    files[form] = memory.getvalue()


def readable():
    found = []
    for form, content in files.items():
        try:
            soundfile.read(io.BytesIO(content))
            found.append(form)
        except soundfile.LibsndfileError:
            pass
    return found


before = readable()
soundfile.write(io.BytesIO(), sound, 16_000, format="SD2", subtype="PCM_16")
left = os.listdir()
after = readable()
os.remove("._")
again = readable()
print("readable before:", before, "| left in the folder:", left, "| readable after:", after, "| removed:", again)
sys.exit(0 if left == ["._"] and set(before) - set(after) == {"MP3"} and again == before else 1)
PY
