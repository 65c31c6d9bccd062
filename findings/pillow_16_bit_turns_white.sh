#!/usr/bin/env bash
# Pillow turns a 16-bit grayscale PNG white when it converts it to RGB, instead of scaling it.
#
# Versions: pillow 13.0.0, numpy 2.4.6, Python 3.11.
#
# Depth maps, microscopy and X-ray sets have 16 bits per pixel, and loaders of image-text models call
# convert("RGB") on whatever they open. One expects 65,535 to become 255 and the middle to become gray.
#
# Seen: values above 255 are clipped. 256, 32,768 and 65,535 are all white, so that an image without pixels under 256
# becomes one color; "L" does the same. TIFF does it as PNG does. No warning. A 16-bit *color* PNG is scaled.
#
# What to do: for mode "I;16", take the array and scale it (or divide by 257) before the conversion.
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
import struct
import sys
import zlib

import numpy as np
from PIL import Image

values = np.array([[0, 100, 256, 32768, 65535]], dtype=np.uint16)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def color_png():
    """The same values in all channels of a 16-bit RGB PNG, which Pillow reads and cannot write."""
    rows = b"\0" + np.repeat(values[0], 3).astype(">u2").tobytes()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", values.shape[1], 1, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


found = {}
for form in ("PNG", "TIFF"):
    file = io.BytesIO()
    Image.fromarray(values).save(file, form)
    image = Image.open(file)
    for mode in ("RGB", "L"):
        found[form, mode] = np.asarray(image.convert(mode)).reshape(1, 5, -1)[0, :, 0].tolist()
        print(form, image.mode, "->", mode, found[form, mode])
color = np.asarray(Image.open(io.BytesIO(color_png())).convert("RGB"))[0, :, 0].tolist()
print("color PNG -> RGB", color)
clipped = all(x == [0, 100, 255, 255, 255] for x in found.values())
sys.exit(0 if clipped and color == [0, 0, 1, 128, 255] else 1)
PY
