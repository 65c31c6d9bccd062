"""Steps for clips of speech of any length, with masks of the valid frames; see `parse.py`."""

import numpy as np

from mmjax.data.transforms import audio_ops, spectrogram, video_ops
from mmjax.data.transforms.captions import example_name


def decode_video(frames, size, box=None):
    """`video` uint8 `[frames, size, size, 3]` at 25 Hz with `video_mask` bool `[frames]`.

    Args:
      frames: the longest clip; shorter ones are followed by zeros.
      box: the mouth's place (x0, y0, x1, y1) in the image, each in 0..1; None: all of it.

    A longer clip is an error, as its text would no longer fit. See `video_ops.read_video`.
    """

    def f(example, rng):
        try:
            found = video_ops.read_video(example.get("video"))
        except ValueError as error:
            name = example_name(example)
            raise ValueError(f"cannot decode 'video' of example {name}: {error}") from None
        if box is not None:
            found = video_ops.crop(found, box)
        return {**example, **_padded("video", video_ops.resize(found, size), frames, example)}

    return f


def sound(rate=16000):
    """`waveform`: the encoded file `audio`, mono, at `rate` Hz, in its length: float32 `[T]`; or
    the samples that a source gives, see `audio_ops.waveform_at`."""

    if rate <= 0:
        raise ValueError(f"rate is {rate}; it must be above 0")

    def f(example, rng):
        found, rest = audio_ops.waveform_at(example, rate)
        return {**rest, "waveform": found}

    f.makes_rate = rate
    return f


def speech_mel(frames, mels, rate=16000, window_ms=32):
    """`audio` `[frames, mels]` float32 at 100 Hz with `audio_mask` bool `[frames]`, of `waveform`.

    The logarithm of the mel power (Slaney's filters), of which each filter has mean 0 and deviation
    1 over the clip; shorter clips are followed by zeros, longer ones are an error.
    """
    window, hop = round(rate * window_ms / 1000), round(rate / 100)
    kind = spectrogram.Frames(window, hop, edges="constant")
    filters = spectrogram.mel_filters(rate, window, mels)

    def f(example, rng):
        x = example.get("waveform")
        if not isinstance(x, np.ndarray) or audio_ops.RATE in example:
            raise ValueError("put sound(rate) before speech_mel: there is no 'waveform' yet")
        log = np.log(spectrogram.mel_power(x, kind, filters) + np.float32(spectrogram.FLOOR))
        log = log[: max(1, round(len(x) / hop))]
        log = (log - log.mean(0)) / (log.std(0) + np.float32(1e-3))
        rest = {key: value for key, value in example.items() if key != "waveform"}
        return {**rest, **_padded("audio", log, frames, example)}

    f.takes_rate = rate
    return f


def _padded(name, x, frames, example):
    """The array followed by zeros up to `frames`, and its mask."""
    if len(x) > frames:
        raise ValueError(
            f"'{name}' of example {example_name(example)} has {len(x)} frames and {frames} are "
            "kept, so that its text would not fit: raise the number of frames, or leave it out"
        )
    rest = ((0, frames - len(x)), *((0, 0),) * (x.ndim - 1))
    return {name: np.pad(x, rest), f"{name}_mask": np.arange(frames) < len(x)}
