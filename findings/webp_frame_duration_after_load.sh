#!/usr/bin/env bash
# Pillow: the frames of an animated WebP have no duration until they are decoded.
#
# Versions: Pillow 13.0.0, numpy 2.4.6, Python 3.11.
#
# info["duration"] after seek(i) is expected to be that of frame i: so it is in GIF and APNG, and reading the
# times of all frames without decoding them works there.
#
# Seen: in WebP info has no "duration" after seek(i); load() sets it. A loop over seek and
# info.get("duration", 100) runs without an error and gives every frame the default.
#
# What to do: call load() before reading the duration.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import io
import sys

import numpy as np
from PIL import Image

WANTED = [100, 200, 300, 400]  # milliseconds


def durations(kind, decode):
    frames = [Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)) for i in range(4)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=WANTED)
    image, found = Image.open(file), []
    for i in range(image.n_frames):
        image.seek(i)
        if decode:
            image.load()
        found.append(image.info.get("duration"))
    print(kind, "after load:" if decode else "after seek:", found)
    return found


ok = all(durations(kind, False) == WANTED for kind in ("GIF", "PNG"))
ok &= durations("WEBP", False) == [None] * 4 and durations("WEBP", True) == WANTED
sys.exit(0 if ok else 1)
PY
