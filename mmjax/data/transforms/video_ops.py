"""Video: files and lists of encoded frames to uint8 frames at 25 Hz; their sound."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mmjax.data.transforms.video_clips import UNKNOWN_CODEC, import_av, open_clip, shown_at

RATE = 25  # frames per second


def read_video(data: bytes | np.ndarray | Sequence[bytes]) -> np.ndarray:
    """Frames [T, H, W, 3] uint8 at 25 Hz.

    Args:
      data: see `open_clip`. Where a file has another rate, also one that varies, its frames are
        repeated or left out: of each 25th of a second that which is shown in its middle.

    Raises:
      ValueError: no frames, frames of several sizes, a damaged file, or a container without the
        package `av`.
    """
    clip = open_clip(data, RATE)
    count = max(1, round(clip.duration * RATE))
    shown = shown_at(clip, (np.arange(count) + 0.5) / RATE)
    distinct, places = np.unique(shown, return_inverse=True)
    return stacked(clip.frames(distinct))[places]


def stacked(frames: Sequence[np.ndarray]) -> np.ndarray:
    """[T, H, W, 3] of frames [H, W, 3].

    Raises:
      ValueError: frames of several sizes.
    """
    sizes = {frame.shape for frame in frames}
    if len(sizes) > 1:
        raise ValueError(f"the video's frames have several sizes, {sorted(sizes)}: resize them")
    return np.stack(frames)


def read_sound(data: bytes) -> bytes | None:
    """The sound of a container as a mono WAV file of 16 bits; None if it has none.

    Raises:
      ValueError: a damaged file, or no package `av`.
    """
    import soundfile  # imported late: it loads libsndfile

    av = import_av("sound")
    try:
        with av.open(io.BytesIO(data), metadata_errors="replace") as file:
            stream = next(iter(file.streams.audio), None)
            if stream is None:
                return None
            if stream.codec_context is None:
                raise ValueError(UNKNOWN_CODEC)
            mono = av.AudioResampler(format="flt", layout="mono", rate=stream.rate)
            blocks = [block for frame in file.decode(stream) for block in mono.resample(frame)]
            blocks += mono.resample(None)
            parts = [block.to_ndarray()[0] for block in blocks]
    except (av.FFmpegError, EOFError) as error:
        raise ValueError(f"{len(data)} bytes are no video that FFmpeg reads ({error})") from None
    if not parts:
        return None
    out = io.BytesIO()
    soundfile.write(out, np.concatenate(parts), stream.rate, format="WAV", subtype="PCM_16")
    return out.getvalue()


def crop(frames: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """[T, H, W, 3]: the part from (x0, y0) to (x1, y1), each in 0..1.

    Raises:
      ValueError: an empty box, or one that is not within 0..1.
    """
    x0, y0, x1, y1 = box
    height, width = frames.shape[1:3]
    left, right = round(x0 * width), round(x1 * width)
    top, bottom = round(y0 * height), round(y1 * height)
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(f"box is {box}; it is (x0, y0, x1, y1) in 0..1, with x0 < x1, y0 < y1")
    return frames[:, top:bottom, left:right]


def resize(frames: np.ndarray, size: int) -> np.ndarray:
    """[T, size, size, 3], bilinear with antialiasing; the aspect ratio is not kept."""
    if frames.shape[1:3] == (size, size):
        return frames
    images = (Image.fromarray(frame) for frame in frames)
    return np.stack([np.asarray(im.resize((size, size), Image.BILINEAR)) for im in images])
