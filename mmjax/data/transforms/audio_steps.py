"""Steps that make `waveform` from an encoded file, change it, and make `audio` from it; see
`parse.py`."""

import math

import numpy as np

from mmjax.data.transforms import audio_ops, chroma, spectrogram
from mmjax.data.transforms.spectrogram import Frames


def waveform(seconds, rate=16000, pad=True):
    """`waveform`: the encoded file `audio`, mono, at `rate` Hz: float32 `[seconds · rate]`.

    Longer audio is truncated, of which no more is read; shorter audio is padded with silence, or
    not, where a later step pads its features. See `audio_ops.decode_audio`. A source may give
    samples in place of a file: see `audio_ops.waveform_at`.
    """
    _check_above_0(seconds=seconds, rate=rate)
    size = round(seconds * rate)

    def f(example, rng):
        # A little more, so that the end is resampled from what follows it.
        x, rest = audio_ops.waveform_at(example, rate, seconds + 0.1)
        return {**rest, "waveform": _fit(x, size) if pad else x[:size]}

    f.makes_rate = rate
    return f


def add_noise(snr=(5.0, 30.0), p=1.0):
    """White Gaussian noise at a random signal-to-noise ratio in decibels; silence stays silent."""
    low, high = _range(snr, "snr")

    def f(x, rng):
        if rng.random() >= p:
            return x
        level = np.sqrt(np.mean(np.square(x))) * 10 ** (-rng.uniform(low, high) / 20)
        return x + level.astype(np.float32) * rng.standard_normal(len(x), np.float32)

    return _on_waveform(f)


def speed(factor=(0.9, 1.1)):
    """Plays the waveform faster by a random factor, which also changes its pitch; in its length.

    Source: Ko et al. 2015, "Audio augmentation for speech recognition".
    """
    low, high = _range(factor, "factor")
    if low < 0.1:
        raise ValueError(f"factor is {factor}; it must be at least 0.1")

    def f(x, rng):
        now = round(1000 * rng.uniform(low, high))
        return _fit(audio_ops.resample(x, now, 1000), len(x))

    return _on_waveform(f)


def time_shift(fraction=0.1):
    """Moves the waveform by up to `fraction` of its length to either side; silence fills it up."""
    _check_fraction(fraction, "fraction")

    def f(x, rng):
        by = round(len(x) * rng.uniform(-fraction, fraction))
        kept = x[max(0, -by) : len(x) - max(0, by)]
        return np.pad(kept, (max(0, by), max(0, -by)))

    return _on_waveform(f)


def log_mel(frames, mels, window_ms=32, hop_ms=10, top_db=60.0):
    """`audio`: an encoded file to its log-mel spectrogram, float32 `[frames, mels]` in [-1, 1].

    1 is its largest entry, -1 everything `top_db` decibels or more below it, so the result does not
    depend on the recording's volume. Longer audio is truncated, shorter audio is padded with
    silence. See `spectrogram.log_mel`.
    """
    _check_above_0(frames=frames, mels=mels, hop_ms=hop_ms, top_db=top_db)

    def f(example, rng):
        x, rate = audio_ops.decode_example(example, audio_ops.decode_audio)
        x = _fit(x, (frames - 1) * round(rate * hop_ms / 1000))
        decibels = (10 / np.log(10)) * spectrogram.log_mel(x, rate, mels, window_ms, hop_ms)
        below = np.maximum(decibels - decibels.max(), -top_db)
        return {**example, "audio": (1 + 2 * below / top_db).astype(np.float32)}

    return f


def whisper_mel(mels=80):
    """`audio`: the features of Whisper, `[100 · seconds, mels]`, of a waveform at 16 kHz."""
    return _to_audio(lambda x: spectrogram.whisper(x, mels), 16000)


def kaldi_fbank(frames, mels=128, mean=-4.2677393, std=4.5689974, rate=16000):
    """`audio`: Kaldi's filter bank, `[frames, mels]`, as (x - mean) / (2 std).

    Longer audio is truncated, shorter audio gets frames of 0 before the normalization. The default
    mean and deviation are AudioSet's. Source: AST, Gong et al. 2021 (arXiv 2104.01778), section 2.
    """
    _check_above_0(frames=frames, mels=mels, std=std, rate=rate)

    def f(x):
        bank = spectrogram.kaldi(x, rate, mels)[:frames]
        bank = np.pad(bank, ((0, frames - len(bank)), (0, 0)))
        return (bank - np.float32(mean)) / np.float32(2 * std)

    return _to_audio(f, rate)


def mfcc(coefficients=40, mels=40, window_ms=30, hop_ms=10, rate=16000, centered=True):
    """`audio`: cepstral coefficients `[1 + 1000 / hop_ms · seconds, coefficients]`.

    See `spectrogram.mfcc`; `rate`: that of the waveform. Not centered: only frames that are inside
    the waveform count, as in the Keyword Transformer.
    """
    _check_above_0(coefficients=coefficients)
    if coefficients > mels:
        raise ValueError(f"{mels} mel filters have no {coefficients} coefficients: raise mels")
    frames = _frames(rate, window_ms, hop_ms, "constant" if centered else "inside")
    return _to_audio(
        lambda x: spectrogram.mfcc(x, rate, coefficients, mels=mels, frames=frames), rate
    )


def chromagram(window_ms=128, hop_ms=32, tuning=0.0, rate=16000):
    """`audio`: the energy of the 12 pitch classes, `[1 + 1000 / hop_ms · seconds, 12]`.

    See `chroma.chroma`; `tuning` None estimates it; `rate`: that of the waveform.
    """
    frames = _frames(rate, window_ms, hop_ms, "constant")
    return _to_audio(lambda x: chroma.chroma(x, rate, tuning, frames), rate)


def standardize():
    """Each feature of `audio` [frames, features] gets mean 0 and deviation 1 over the clip.

    For cepstral coefficients, cepstral mean and variance normalization: it removes the volume and
    the channel. Source: Viikki and Laurila 1998.
    """

    def f(example, rng):
        x = _audio(example, "standardize").astype(np.float64)
        x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-3)
        return {**example, "audio": x.astype(np.float32)}

    return f


def spec_augment(time=0.1, frequency=0.2, masks=2):
    """Masks of `audio` [frames, features]: its mean instead of random frames and features.

    Args:
      time, frequency: the widest mask, as a fraction of the frames or the features; its width is
        drawn from 0 on.
      masks: how many of each.

    Source: Park et al. 2019, SpecAugment (arXiv 1904.08779), section 2, without time warping.
    """
    for name, part in (("time", time), ("frequency", frequency)):
        _check_fraction(part, name)

    def f(example, rng):
        audio = _audio(example, "spec_augment")
        masked = audio.copy()
        for axis, part in ((0, time), (1, frequency)):
            size = audio.shape[axis]
            for _ in range(masks):
                width = int(rng.integers(0, round(part * size) + 1))
                start = int(rng.integers(0, size - width + 1))
                masked[(slice(None),) * axis + (slice(start, start + width),)] = audio.mean()
        return {**example, "audio": masked}

    return f


def _fit(x, size):
    """[size]: truncated, or padded with silence."""
    return np.pad(x[:size], (0, max(0, size - len(x))))


def _on_waveform(f):
    """A step that replaces `waveform` by `f(waveform, rng)`."""

    def step(example, rng):
        return {**example, "waveform": f(_waveform(example), rng)}

    return step


def _to_audio(f, rate):
    """A step that replaces `waveform`, at `rate` Hz, by `audio`, `f(waveform)`."""

    def step(example, rng):
        rest = {key: value for key, value in example.items() if key != "waveform"}
        return {**rest, "audio": f(_waveform(example))}

    step.takes_rate = rate
    return step


def _audio(example, step):
    if not isinstance(example.get("audio"), np.ndarray):
        raise ValueError(f"put a step that makes 'audio', such as mfcc, before {step}")
    return example["audio"]


def _waveform(example):
    # With `waveform_rate` it is as the source gave it.
    if not isinstance(example.get("waveform"), np.ndarray) or audio_ops.RATE in example:
        raise ValueError("put waveform(seconds) first in the chain: there is no 'waveform' yet")
    return example["waveform"]


def _frames(rate, window_ms, hop_ms, edges):
    window, hop = round(rate * window_ms / 1000), round(rate * hop_ms / 1000)
    return Frames(window, hop, edges=edges)


def _range(value, name):
    """(low, high) of a setting that is a number or a pair."""
    low, high = value if isinstance(value, tuple | list) else (value, value)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"{name} is {value}; it must be a number, or (lowest, highest)")
    return low, high


def _check_fraction(value, name):
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; it must be from 0 to 1")


def _check_above_0(**settings):
    for name, value in settings.items():
        if value <= 0:
            raise ValueError(f"{name} is {value}; it must be above 0")
