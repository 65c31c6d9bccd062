"""Audio: encoded files to mono waveforms at a rate. Features of waveforms: `spectrogram.py`."""

import functools
import io
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

from mmjax.data.transforms import audio_ends
from mmjax.data.transforms.captions import example_name

BLOCK = 1 << 20  # frames read at a time: only the mean of the channels is kept
MISSING = 0.25  # seconds that a whole file may have less than its header declares
LOUDEST = 1e9  # the power of louder samples, as floating-point files may have, overflows
RATE = "waveform_rate"  # the field with the sampling rate in Hz of a source's samples
UNKNOWN = 2**63 - 1  # libsndfile's number of samples in a FLAC stream that was never finished
_CONTAINERS = (  # offset and bytes of what is not audio alone
    (4, b"ftyp", "an MP4 file (video, or AAC audio)"),
    (0, b"\x1a\x45\xdf\xa3", "a Matroska or WebM file"),
    (8, b"AVI ", "an AVI file"),
    (0, b"FLV", "a Flash video"),
    (0, b"\x30\x26\xb2\x75", "an ASF file (WMA or WMV)"),
)


def decode_audio(
    data: bytes | str | os.PathLike, seconds: float | None = None
) -> tuple[np.ndarray, int]:
    """Decode WAV, FLAC, OGG, MP3, ...: mono waveform [T] float32, and rate in Hz.

    Integer samples are in [-1, 1]; 16-bit ones are divided by 32768, 24-bit ones by 2^23. Floating
    point samples are not scaled. The waveform is the mean of all channels, so a silent one of two
    halves the other, as in librosa and ffmpeg.

    Args:
      data: the bytes of a file, or its path.
      seconds: read no more than this from the beginning; bounds memory for long files.

    Raises:
      ValueError: empty, in no format of libsndfile, a video, truncated or damaged, no samples, or
        samples that are not finite or absurdly large.
    """
    import soundfile  # imported late: it loads libsndfile

    if isinstance(data, str | os.PathLike):
        opened, size = data, os.path.getsize(data)
        with open(data, "rb") as file:
            head = check_file(file)
    else:
        opened, size = io.BytesIO(data), len(data)
        head = check_file(opened)
    blocks = []
    try:
        with soundfile.SoundFile(opened) as file:
            rate = file.samplerate
            if file.frames == UNKNOWN:
                raise ValueError(
                    "the audio's header gives no usable length: write it to a file again"
                )
            left = file.frames if seconds is None else min(file.frames, math.ceil(seconds * rate))
            while left:
                block = file.read(min(left, BLOCK), dtype="float32", always_2d=True)
                if not len(block):
                    check_end(file.tell(), left, rate)
                    break
                blocks.append(block.mean(axis=1))
                left -= len(block)
    except soundfile.SoundFileError as error:
        why = getattr(error, "error_string", str(error)).rstrip(".")
        raise ValueError(
            f"{size} bytes that start with {head[:12]!r} are no audio that libsndfile "
            f"reads ({why}): use WAV, FLAC or OGG"
        ) from None
    if not blocks:
        raise ValueError("the audio has no samples: leave it out")
    waveform = np.concatenate(blocks)
    if not (np.abs(waveform) < LOUDEST).all():
        raise ValueError(
            f"the audio has samples that are not finite, or not below {LOUDEST:.0e}: write it again"
        )
    return waveform, rate


def duration(path: str | os.PathLike) -> float:
    """The length of a file in seconds, by its header.

    Raises:
      ValueError: as `decode_audio`, where the header tells.
    """
    import soundfile

    decode_audio(path, 1e-3)
    return soundfile.info(path).duration


def decode_at(
    data: bytes | str | os.PathLike, rate: int, seconds: float | None = None
) -> np.ndarray:
    """As `decode_audio`, resampled to `rate` in Hz: [T] float32."""
    waveform, original = decode_audio(data, seconds)
    return resample(waveform, original, rate)


def resample(waveform: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """[T] at `rate` Hz to [ceil(T · new_rate / rate)] at `new_rate`, by soxr's "HQ" filter.

    soxr itself rounds the length, to 0 for a single sample at 44.1 kHz; as in librosa and
    torchaudio it is rounded up here, with a zero.
    """
    if rate == new_rate:
        return waveform
    import soxr

    size = math.ceil(len(waveform) * new_rate / rate)
    resampled = soxr.resample(waveform, rate, new_rate)[:size]
    return np.pad(resampled, (0, size - len(resampled)))


def check_end(read: int, left: int, rate: int) -> None:
    """Raise ValueError for a file that ends long before its header says, as a truncated MP3 does.

    Args:
      read: samples that it had; left: those that are missing; rate: in Hz.
    """
    if left > MISSING * rate:
        raise ValueError(
            f"the audio ends after {read / rate:.2f} s and its header declares "
            f"{(read + left) / rate:.2f} s: it is truncated, copy it again"
        )


def decode_example(example: Mapping[str, Any], read: Callable[[bytes], Any]) -> Any:
    """`read` of the encoded file `audio` of an example; an error names the example."""
    try:
        return read(example.get("audio", b""))
    except ValueError as error:
        name = example_name(example)
        raise ValueError(f"cannot decode 'audio' of example {name}: {error}") from None


def waveform_at(
    example: Mapping[str, Any], rate: int, seconds: float | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """The waveform [T] float32 of an example at `rate` Hz, and its other fields.

    Of the encoded file `audio`; or of `waveform`, [T] float32 at `waveform_rate` Hz, which a source
    gives in its place.

    Args:
      seconds: no more than these, from the beginning.

    Raises:
      ValueError: a file that cannot be read, or samples without their rate; names the example.
    """
    rest = {k: v for k, v in example.items() if k not in ("audio", "waveform", RATE)}
    if "audio" in example or "waveform" not in example:
        read = functools.partial(decode_at, rate=rate, seconds=seconds)
        return decode_example(example, read), rest
    samples, own = example["waveform"], example.get(RATE)
    if not isinstance(samples, np.ndarray) or samples.ndim != 1 or not len(samples):
        fault = f"must be an array [T], and is {getattr(samples, 'shape', type(samples).__name__)}"
    elif samples.dtype != np.float32 or not (np.abs(samples) < LOUDEST).all():
        fault = f"must be finite float32 in [-1, 1], and is {samples.dtype}"
    elif not isinstance(own, int | np.integer) or own <= 0:
        fault = f"needs its sampling rate in Hz as '{RATE}', which is {own!r}"
    else:
        kept = samples if seconds is None else samples[: math.ceil(seconds * own)]
        return resample(kept, int(own), rate), rest
    raise ValueError(f"'waveform' of example {example_name(example)} {fault}")


def check_file(file: BinaryIO) -> bytes:
    """The first bytes of an encoded file, which stays at its beginning.

    Raises:
      ValueError: an empty file, a video container, or a truncated file.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - audio_ends.TAIL))
    tail = file.read()
    file.seek(0)
    head = file.read(audio_ends.HEAD)
    file.seek(0)
    if not size:
        raise ValueError("there is no audio (0 bytes): leave it out, or copy it again")
    for offset, mark, kind in _CONTAINERS:
        if head[offset : offset + len(mark)] == mark:
            raise ValueError(
                f"this is {kind}, which libsndfile does not read: extract its sound by "
                "ffmpeg -i FILE -ac 1 -ar 16000 FILE.wav"
            )
    audio_ends.check(head, tail, size)
    return head
