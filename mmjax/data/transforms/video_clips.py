"""The frames of a video by time, of which only those that are asked for are decoded.

Containers (MP4, WebM, MKV, ...) are read through PyAV: the packets' timestamps are read without
decoding, and frames are then decoded from the key frame before them. Animations (GIF, APNG, WebP)
are read through Pillow, which has to decode them from the start.
"""

import io
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mmjax.data.transforms.decode import (
    DAMAGED,
    MAX_FRAME_PIXELS,
    check_pixels,
    decode_image,
    to_rgb,
)

RATE = 25.0  # frames per second of images without times
_STILL = 0.1  # seconds that a frame of an animation without a duration is shown, as in browsers
_WHITE = (255, 255, 255)
# Containers whose frames all have timestamps in the order of presentation; in others, such as AVI
# and MPEG program streams, frames are counted.
_TIMED = ("mov", "matroska")
# Decoders that can leave out frames which no other refers to.
_SKIPPING = ("h264", "hevc", "mpeg4")
UNKNOWN_CODEC = "it is damaged, or has a codec that FFmpeg does not know: write it again"
_ANIMATIONS = ("GIF", "PNG", "WEBP", "AVIF")


class Clip(Protocol):
    """Frames at known times.

    Attributes:
      times: [N] float64, seconds from the first frame to the beginning of each, increasing.
      duration: seconds to the end of the last frame.
    """

    times: np.ndarray
    duration: float

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Frames [H, W, 3] uint8 of these indices, which increase.

        Raises:
          ValueError: a damaged file.
        """
        ...


def open_clip(data: bytes | np.ndarray | Sequence[bytes] | None, rate: float = RATE) -> Clip:
    """The frames of a video, none of which is decoded yet.

    Args:
      data: bytes of a container or of an animation; encoded images, one per frame; an array
        [T, H, W, 3]; or several of these, `Joined`.
      rate: frames per second of images and arrays, which have no times.

    Raises:
      ValueError: no frames, a damaged file, one without video, or a container without the package
        `av`.
    """
    if isinstance(data, Joined):
        clip = Sequel([open_clip(one, each) for one, each in data])
    elif isinstance(data, bytes | bytearray) and data:
        clip = _animation(bytes(data)) or Container(bytes(data))
    elif data is not None and not isinstance(data, str | bytes | bytearray):
        clip = Images(data, rate)
    else:
        clip = Images((), rate)
    if not len(clip.times):
        raise ValueError("the video has no frames: leave it out")
    return clip


def shown_at(clip: Clip, times: np.ndarray) -> np.ndarray:
    """[n] int: the index of the frame that is shown at each of these seconds."""
    found = np.searchsorted(clip.times, np.asarray(times) + 1e-6, side="right") - 1
    return found.clip(0, len(clip.times) - 1)


class Joined(tuple):
    """Videos with their frame rates, one after the other, as data of `open_clip`."""


class Sequel:
    """Clips one after the other."""

    def __init__(self, clips: Sequence[Clip]):
        self._clips = clips
        starts = np.cumsum([0.0, *(clip.duration for clip in clips)])
        self.times = np.concatenate([c.times + t for c, t in zip(clips, starts)])
        self.duration = float(starts[-1])

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        """See `Clip`."""
        found, first = [], 0
        for clip in self._clips:
            after = first + len(clip.times)
            found += clip.frames([int(i) - first for i in indices if first <= i < after])
            first = after
        return found


class Images:
    """Encoded images, or an array [T, H, W, 3], at a constant rate."""

    def __init__(self, data: np.ndarray | Sequence[bytes], rate: float):
        self._data = data
        self.times = np.arange(len(data)) / rate
        self.duration = len(data) / rate

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        """See `Clip`."""
        found = (self._data[int(i)] for i in indices)
        return [x if isinstance(x, np.ndarray) else decode_image(x) for x in found]


class Animation:
    """An image of several frames."""

    def __init__(self, image: Image.Image):
        self._image = image
        lengths = []
        try:
            for i in range(image.n_frames):
                image.seek(i)
                check_pixels(image, 2 * MAX_FRAME_PIXELS)  # a frame of a GIF may enlarge it
                if image.format == "WEBP":
                    image.load()  # else it still has the duration of the frame before
                lengths.append(float(image.info.get("duration") or 0) / 1000 or _STILL)
        except DAMAGED as error:
            raise ValueError(f"the animation is damaged or truncated: {error}") from None
        ends = np.cumsum(lengths)
        self.times, self.duration = ends - lengths, float(ends[-1])

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        """See `Clip`."""
        found = []
        try:
            for i in indices:
                self._image.seek(int(i))
                check_pixels(self._image, 2 * MAX_FRAME_PIXELS)
                found.append(np.asarray(to_rgb(self._image.copy(), _WHITE)))
        except DAMAGED as error:
            raise ValueError(f"the animation is damaged or truncated: {error}") from None
        return found


def _animation(data: bytes) -> Animation | None:
    try:
        image = Image.open(io.BytesIO(data), formats=_ANIMATIONS)
    except Image.DecompressionBombError as error:
        raise ValueError(f"the animation is too large: {error}") from None
    except DAMAGED:
        return None
    check_pixels(image, 2 * MAX_FRAME_PIXELS)  # which are transparent, and count twice
    return Animation(image)


class Container:
    """A file of compressed video.

    Raises:
      ValueError: a damaged file, one without video, or no package `av`.
    """

    def __init__(self, data: bytes):
        self._data, self._av = data, import_av("frames")
        with self._file() as (file, stream):
            self._counted = file.format.name.split(",")[0] not in _TIMED
            self._skips = not self._counted and stream.codec_context.name in _SKIPPING
            packets = [p for p in file.demux(stream) if p.size and not p.is_discard]
            rate = float(stream.average_rate or RATE)
            tick = float(stream.time_base or 1 / rate)
        if self._counted:
            with self._file() as (file, stream):
                stamps, tick, last = [x for x, _ in self._decoded(file, stream)], 1 / rate, 1
            self._keys = np.zeros(0, np.int64)
        else:
            packets = [p for p in packets if p.pts is not None]  # as a damaged file may have
            stamps = sorted({p.pts for p in packets})
            self._keys = np.sort(np.asarray([p.pts for p in packets if p.is_keyframe], np.int64))
            last = next((p.duration for p in packets if p.pts == stamps[-1]), None)
        self._stamps, self._tick = np.asarray(stamps, np.int64), tick
        self.times = (self._stamps - self._stamps[:1]) * tick
        self.duration = float(self.times[-1] + (last or 1 / rate / tick) * tick) if stamps else 0.0

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        """See `Clip`."""
        wanted = [int(self._stamps[int(i)]) for i in indices]
        found: dict[int, np.ndarray] = {}
        with self._file() as (file, stream):
            for start, stamps in self._runs(wanted):
                if start is not None:
                    file.seek(start, stream=stream)
                found |= self._run(file, stream, stamps)
        rest = set(wanted) - set(found)
        if rest:  # the seek went too far: from the start
            with self._file() as (file, stream):
                found |= self._run(file, stream, rest)
        rest -= set(found)
        if rest:
            at = (min(rest) - int(self._stamps[0])) * self._tick
            raise ValueError(f"the video is damaged: its frame at {at:.2f} s cannot be decoded")
        return [found[stamp] for stamp in wanted]

    def _runs(self, wanted: Sequence[int]) -> list[tuple[int | None, set[int]]]:
        """(key frame to seek to, timestamps to decode from there) of each key frame."""
        if not len(self._keys):
            return [(None, set(wanted))]
        places = (np.searchsorted(self._keys, wanted, side="right") - 1).clip(0)
        return [
            (int(self._keys[place]), {s for s, p in zip(wanted, places) if p == place})
            for place in np.unique(places)
        ]

    def _run(self, file, stream, wanted: set[int]) -> dict[int, np.ndarray]:
        """Decode from here until all of these timestamps are found."""
        found: dict[int, np.ndarray] = {}
        for stamp, frame in self._decoded(file, stream, wanted):
            if stamp in wanted:
                found[stamp] = _upright(frame)
            if len(found) == len(wanted):
                break
        return found

    def _decoded(self, file, stream, wanted: set[int] | None = None) -> Iterator[tuple[int, Any]]:
        """(timestamp, frame) from here on.

        Args:
          wanted: other frames are left out if no frame refers to them; None: none is.
        """
        count = itertools.count()
        for packet in file.demux(stream):
            if wanted is not None and self._skips:
                stream.codec_context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            try:
                frames = packet.decode()
            except self._av.error.InvalidDataError:  # a frame that is missed is noticed at the end
                continue
            for frame in frames:
                yield (next(count) if self._counted else frame.pts), frame

    def _file(self) -> "_Opened":
        return _Opened(self._av, self._data)


class _Opened:
    """Context of an open container and its first video stream."""

    def __init__(self, av, data: bytes):
        self._av, self._data = av, data

    def __enter__(self):
        try:
            # Its texts are not read, and need not be UTF-8.
            self._file = self._av.open(io.BytesIO(self._data), metadata_errors="replace")
        except (self._av.FFmpegError, EOFError) as error:
            raise self._damaged(error) from None
        stream = next(iter(self._file.streams.video), None)
        if stream is None:
            kinds = ", ".join(sorted({s.type for s in self._file.streams})) or "nothing"
            self._file.close()
            raise ValueError(f"the file has no video, only {kinds}: leave it out")
        if stream.codec_context is None:
            self._file.close()
            raise ValueError(UNKNOWN_CODEC)
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MAX_FRAME_PIXELS:
            self._file.close()
            raise ValueError(
                f"its frames have {width} x {height} pixels; the maximum is {MAX_FRAME_PIXELS:,}: "
                "make it smaller"
            )
        stream.thread_type = "NONE"  # examples are decoded in several threads already
        return self._file, stream

    def __exit__(self, kind, error, trace):
        self._file.close()
        if isinstance(error, self._av.FFmpegError | EOFError):
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> ValueError:
        return ValueError(f"{len(self._data)} bytes are no video that FFmpeg reads ({error})")


def _upright(frame) -> np.ndarray:
    """A decoded frame as RGB, turned as its file says."""
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def import_av(what: str):
    """The package `av`.

    Raises:
      ValueError: it is not installed; `what` of a video needs it.
    """
    try:
        import av
    except ImportError:
        raise ValueError(
            f"the {what} of a video file need the package av: pip install 'mmjax[video]', or give "
            "a folder of images per clip and its sound as WAV"
        ) from None
    return av
