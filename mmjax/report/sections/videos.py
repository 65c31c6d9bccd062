"""Videos of a source in the report: a contact sheet of each, and an animated preview."""

import base64
import dataclasses
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmjax.data.transforms.video_clips import RATE, open_clip, shown_at
from mmjax.data.transforms.video_ops import stacked
from mmjax.report.evaluated import Evaluated
from mmjax.report.sections.section import Section

COUNT, FRAMES, SIDE = 6, 8, 96  # videos; frames of each; their longer side in pixels


@dataclasses.dataclass(frozen=True)
class Video:
    """Frames [T, H, W, 3] uint8 of a video that takes so many seconds, and its caption or key."""

    frames: np.ndarray
    seconds: float
    about: str


def contact_sheet(frames: np.ndarray, columns: int = 4) -> np.ndarray:
    """Frames [T, H, W, 3] in rows of `columns`, on white: uint8 [rows * H, columns * W, 3]."""
    count, height, width, _ = frames.shape
    rows = -(-count // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, frame in enumerate(frames):
        y, x = i // columns * height, i % columns * width
        sheet[y : y + height, x : x + width] = frame
    return sheet


def animation(frames: np.ndarray, seconds: float) -> bytes:
    """An animated WebP of frames [T, H, W, 3], which takes so many seconds, endlessly repeated."""
    first, *rest = (Image.fromarray(frame) for frame in frames)
    out, each = io.BytesIO(), max(20, round(1000 * seconds / len(frames)))
    settings = {"save_all": True, "append_images": rest, "duration": each, "loop": 0}
    first.save(out, "WEBP", quality=60, **settings)
    return out.getvalue()


def _collect(evaluated: Evaluated) -> list[Video] | None:
    source = evaluated.source
    if not len(source) or "video" not in source[0]:
        return None
    return [video_of(source[int(i)]) for i in evaluated.drawn(len(source), COUNT)]


def video_of(example: Mapping[str, Any]) -> Video:
    """`FRAMES` frames of an example at equal distances in time, or all that it has.

    Raises:
      ValueError: frames of several shapes, or a damaged video.
    """
    clip = open_clip(example["video"], example.get("frame_rate", RATE))
    count = min(FRAMES, len(clip.times))
    times = (np.arange(count) + 0.5) * clip.duration / count
    indices, places = np.unique(shown_at(clip, times), return_inverse=True)
    frames = stacked([_small(frame) for frame in clip.frames(indices)])[places]
    about = (example.get("captions") or [str(example.get("key", ""))])[0]
    return Video(frames, clip.duration, about)


def _html(found: Sequence[Video], seed: int) -> str:
    tiles = "".join(map(_tile, found))
    return (
        f'<p class="note">Videos drawn at random (seed {seed}): {FRAMES} frames at equal distances '
        "in time, and the same as an animation.</p>"
        f'<div class="examples wide">{tiles}</div>'
    )


def _tile(video: Video) -> str:
    about, out = html.escape(video.about), io.BytesIO()
    Image.fromarray(contact_sheet(video.frames)).save(out, "WEBP", quality=80)
    images = "".join(
        f'<img class="image" alt="{alt}" src="data:image/webp;base64,{_base64(data)}">'
        for alt, data in (
            (f"frames of: {about}", out.getvalue()),
            (f"animation of: {about}", animation(video.frames, video.seconds)),
        )
    )
    return f'<article>{images}<p><bdi dir="auto">{about}</bdi></p></article>'


def _small(frame: np.ndarray) -> np.ndarray:
    image = Image.fromarray(frame)
    image.thumbnail((SIDE, SIDE))
    return np.asarray(image)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


SECTION = Section("Videos", _collect, _html, once=True)
