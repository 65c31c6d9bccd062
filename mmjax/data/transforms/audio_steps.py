"""Steps that make `audio`; see `parse.py`."""

import numpy as np

from mmjax.data.transforms import audio_ops, spectrogram
from mmjax.data.transforms.captions import example_name


def log_mel(frames, mels, window_ms=32, hop_ms=10, top_db=60.0):
    """`audio`: an encoded file to its log-mel spectrogram, float32 `[frames, mels]` in [-1, 1].

    1 is its largest entry, -1 everything `top_db` decibels or more below it, so the result does not
    depend on the recording's volume. Longer audio is truncated, shorter audio is padded with
    silence. See `spectrogram.log_mel`.
    """
    if top_db <= 0:
        raise ValueError(f"top_db is {top_db}; it must be above 0")

    def f(example, rng):
        try:
            waveform, rate = audio_ops.decode_audio(example.get("audio", b""))
        except ValueError as error:
            name = example_name(example)
            raise ValueError(f"cannot decode 'audio' of example {name}: {error}") from None
        length = (frames - 1) * round(rate * hop_ms / 1000)
        waveform = np.pad(waveform[:length], (0, max(0, length - len(waveform))))
        decibels = (10 / np.log(10)) * spectrogram.log_mel(waveform, rate, mels, window_ms, hop_ms)
        below = np.maximum(decibels - decibels.max(), -top_db)
        return {**example, "audio": (1 + 2 * below / top_db).astype(np.float32)}

    return f
