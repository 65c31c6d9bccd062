#!/usr/bin/env bash
# Decoding the key frames alone decodes every frame of a VP9 video.
#
# Versions: av (PyAV) 18.1.0 with its own FFmpeg libraries, numpy 2.4.6, Python 3.11.
#
# The known way to a cheap contact sheet is `stream.codec_context.skip_frame = "NONKEY"`: the decoder then returns
# the key frames and spends no time on the others.
#
# Seen: H.264, MPEG-4, VP8 and AV1 (by libdav1d) return 5 of 50 frames for a key frame every 10. FFmpeg's VP9 decoder
# returns all 50: it does not look at skip_frame. The packets know better: 5 of them are key frames.
#
# What to do: for VP9, give the decoder only the packets with `is_keyframe`.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6
cd "$folder"
SVT_LOG=0 "$folder/venv/bin/python" - <<'PY'
import io
import sys

import av
import numpy as np

image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
found = {}
for encoder, form in (
    ("libx264", "mp4"), ("mpeg4", "mp4"), ("libsvtav1", "mp4"), ("libvpx", "webm"), ("libvpx-vp9", "webm"),
):
    file = io.BytesIO()
    with av.open(file, "w", format=form) as made:
        stream = made.add_stream(encoder, rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 10
        for i in range(50):
            made.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(image, i, 1), format="rgb24")))
        made.mux(stream.encode())
    with av.open(io.BytesIO(file.getvalue())) as video:
        key = sum(packet.is_keyframe for packet in video.demux(video=0) if packet.size)
    with av.open(io.BytesIO(file.getvalue())) as video:
        video.streams.video[0].codec_context.skip_frame = "NONKEY"
        decoded = sum(1 for _ in video.decode(video=0))
        found[encoder] = (key, decoded)
        print(f"{encoder}: {key} key frames, {decoded} decoded by {video.streams.video[0].codec_context.codec.name}")
others = all(key == decoded == 5 for name, (key, decoded) in found.items() if name != "libvpx-vp9")
sys.exit(0 if others and found["libvpx-vp9"] == (5, 50) else 1)
PY
