"""Videos whose frames can be told apart, and files of them."""

import io

import numpy as np
import pytest
from PIL import Image


def frames(count, height=32, width=48, seed=0):
    """Blocks that move to the right, and a bar that grows: [count, height, width, 3] uint8."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 200, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    video = np.stack([np.roll(blocks, 2 * i, axis=1) for i in range(count)])
    for i in range(count):
        video[i, :4, : 1 + i * (width - 1) // count] = 255
    return video


def encoded(video, container="mp4", codec="libx264", rate=25, stamps=None, sound=False, **options):
    """The bytes of a container; `stamps`: times of the frames in units of 1 / rate."""
    av = pytest.importorskip("av", reason="needs the extra mmjax[video]")
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *video.shape[1:3], "yuv420p"
        stream.options = {name: str(value) for name, value in options.items()}
        for i, image in enumerate(video):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = i if stamps is None else int(stamps[i])
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return out.getvalue()


def only_sound():
    """The bytes of an MP4 with sound alone."""
    av = pytest.importorskip("av", reason="needs the extra mmjax[video]")
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 8000, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return out.getvalue()


def animated(video, kind, durations):
    """The bytes of an animation; `durations` in ms."""
    first, *rest = (Image.fromarray(frame) for frame in video)
    out = io.BytesIO()
    lossless = {"lossless": True} if kind == "WEBP" else {}
    first.save(out, kind, save_all=True, append_images=rest, duration=durations, **lossless)
    return out.getvalue()


def decoded(data):
    """All frames of a container, one after the other."""
    import av

    with av.open(io.BytesIO(data)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def images(video):
    """Each frame as a PNG."""
    found = []
    for frame in video:
        out = io.BytesIO()
        Image.fromarray(frame).save(out, "PNG")
        found.append(out.getvalue())
    return found
