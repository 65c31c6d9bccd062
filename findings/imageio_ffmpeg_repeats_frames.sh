#!/usr/bin/env bash
# imageio with FFMPEG returns 34 frames of a video that has 10.
#
# Versions: imageio 2.38.1, imageio-ffmpeg 0.8.1 (its wheel brings ffmpeg), av 18.1.0, numpy 2.4.6, Python 3.11.
#
# Phones, screen recorders and cut clips have frames at uneven times. imread is expected to give the frames of the
# file, and both of imageio's video plugins to give the same ones.
#
# Seen: the FFMPEG plugin reads raw video from ffmpeg's pipe, a format without times, for which ffmpeg makes the rate
# constant: of ten frames with a pause of a second in the middle, the fifth fills the pause and comes 25 times. The
# container says 10 and the plugin "pyav" returns 10. Frame numbers of annotations, and "every eighth
# frame", mean other images by plugin, and which one imread takes depends on what is installed.
#
# What to do: plugin="pyav", or output_params=["-fps_mode", "passthrough"].
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    imageio==2.38.1 imageio-ffmpeg==0.8.1 av==18.1.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys
from fractions import Fraction

import av
import imageio.v3 as iio
import numpy as np

ms = Fraction(1, 1000)
with av.open("uneven.mp4", "w") as made:
    stream = made.add_stream("libx264", rate=25, options={"bf": "0"})
    stream.width, stream.height, stream.pix_fmt, stream.codec_context.time_base = 64, 64, "yuv420p", ms
    for i, time in enumerate((0, 40, 80, 120, 160, 1160, 1200, 1240, 1280, 1320)):
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 * i, np.uint8), format="rgb24")
        frame.pts, frame.time_base = time, ms
        made.mux(stream.encode(frame))
    made.mux(stream.encode())
with av.open("uneven.mp4") as video:
    declared = video.streams.video[0].frames
passthrough = {"plugin": "FFMPEG", "output_params": ["-fps_mode", "passthrough"]}
found = {}
for name, options in (("pyav", {"plugin": "pyav"}), ("FFMPEG", {"plugin": "FFMPEG"}), ("passthrough", passthrough)):
    frames = iio.imread("uneven.mp4", **options)
    found[name] = len(frames)
    print(f"{name}: {len(frames)} frames, gray levels {frames[:, 8, 8, 0].tolist()}")
print(f"the container declares {declared}")
sys.exit(0 if declared == 10 and found == {"pyav": 10, "FFMPEG": 34, "passthrough": 10} else 1)
PY
