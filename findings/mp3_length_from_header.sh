#!/usr/bin/env bash
# Of an incomplete MP3 libsndfile reports the length of the whole recording, and reading ends early.
#
# Versions: soundfile 0.14.0 (its own libsndfile), numpy 2.4.6, Python 3.11.
#
# info.frames, or SoundFile.frames, is expected to be what read returns, or reading to fail: an
# incomplete FLAC raises an error, and of an incomplete WAV the length is what is there.
#
# Seen: the length of an MP3 is taken from its first frame, which has the number of frames of the whole
# file. A copy that stopped half way has the full length, and read returns half of it without an error;
# the decoder's line on stderr about the stream's size is all. Whoever allocates or pads by the declared length trains on seconds of silence.
#
# What to do: compare what was read with what was declared.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys
from pathlib import Path

import numpy as np
import soundfile

rate = 16_000
tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(12 * rate) / rate)
found = {}
for kind in ("mp3", "flac", "wav"):
    soundfile.write(f"whole.{kind}", tone, rate)
    whole = Path(f"whole.{kind}").read_bytes()
    Path(f"half.{kind}").write_bytes(whole[: len(whole) // 2])
    try:
        declared = soundfile.info(f"half.{kind}").frames
        found[kind] = declared, len(soundfile.read(f"half.{kind}")[0])
    except soundfile.SoundFileError as error:
        found[kind] = str(error)
    print(kind, "declared and read:", found[kind])
declared, read = found["mp3"]
sys.exit(0 if declared > 1.8 * read and found["wav"][0] == found["wav"][1] else 1)
PY
