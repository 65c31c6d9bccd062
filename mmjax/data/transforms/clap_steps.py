"""The step that makes CLAP's `audio`; see `parse.py`."""

import functools

import numpy as np

from mmjax.data.transforms import audio_ops, spectrogram

PADDINGS = ("repeatpad", "repeat", "pad")


def clap_input(
    seconds=10,
    mels=64,
    rate=48_000,
    window=1024,
    hop=480,
    low=50,
    high=14_000,
    fusion=False,
    padding="repeatpad",
    crop="random",
):
    """`audio`: an encoded file to its log-mel spectrogram in decibels, float32 `[frames, mels]`.

    frames = 1 + seconds * rate // hop. Of a longer clip a part is taken. A shorter one is
    repeated as often as it fits and padded with silence ("repeatpad"), repeated and cut ("repeat"),
    or padded ("pad").

    Args:
      mels: mel filters from `low` to `high` Hz; window, hop: in samples.
      fusion: the spectrogram is `[4, frames, mels]`, of a longer clip the whole shrunk in time, and
        random crops of its first, second and last third; and `audio_longer`, whether it is one.
        (transformers 5.23 calls a random clip of a batch longer where none is.) Mel filters are
        then HTK's without a norm, otherwise Slaney's.
      crop: which part is taken of a longer clip, without fusion: "random", or from the "start".

    Source: CLAP, Wu et al. 2022 (arXiv 2211.06687), section 4.2; transformers'
    ClapFeatureExtractor, with truncation "fusion" and "rand_trunc".
    """
    if padding not in PADDINGS:
        raise ValueError(f"padding is '{padding}'; use one of {', '.join(PADDINGS)}")
    if crop not in ("random", "start"):
        raise ValueError(f"crop is '{crop}'; use 'random' or 'start'")
    scale = ("htk", None) if fusion else ("slaney", "slaney")
    filters = spectrogram.mel_filters(rate, window, mels, *scale, low, high)
    cut, length = spectrogram.Frames(window, hop), round(seconds * rate)
    if length < 1:
        raise ValueError(f"seconds is {seconds}; it must be above 0")
    read = functools.partial(audio_ops.decode_at, rate=rate)

    def decibels(waveform):
        return spectrogram.decibels(spectrogram.mel_power(waveform, cut, filters))

    def f(example, rng):
        waveform = audio_ops.decode_example(example, read)
        if not fusion:
            over = len(waveform) - length
            start = rng.integers(over + 1) if over > 0 and crop == "random" else 0
            waveform = waveform[start : start + length]
            return {**example, "audio": decibels(_fill(waveform, length, padding))}
        mel = decibels(_fill(waveform, length, padding))
        longer = len(mel) > cut.count(length)
        audio = _with_crops(mel, cut.count(length), rng) if longer else np.stack([mel] * 4)
        return {**example, "audio": audio, "audio_longer": np.bool_(longer)}

    return f


def _fill(waveform, length, padding):
    """A waveform of at least `length` samples: repeated and padded."""
    size = len(waveform)
    if size >= length:
        return waveform
    if padding == "repeat":
        return np.resize(waveform, length)
    times = length // size if padding == "repeatpad" else 1
    return np.pad(np.tile(waveform, times), (0, length - times * size))


def _with_crops(mel, frames, rng):
    """[F, M] -> [4, frames, M]: shrunk to `frames`, and crops of its three parts."""
    starts = np.array_split(np.arange(len(mel) - frames + 1), 3)
    chosen = [rng.choice(part) if len(part) else 0 for part in starts]
    crops = [mel[start : start + frames] for start in chosen]
    at = np.maximum((np.arange(frames) + 0.5) * (len(mel) / frames) - 0.5, 0)
    before = at.astype(int)
    after = np.minimum(before + 1, len(mel) - 1)
    weight = (at - before)[:, None].astype(np.float32)
    return np.stack([mel[before] * (1 - weight) + mel[after] * weight, *crops])
