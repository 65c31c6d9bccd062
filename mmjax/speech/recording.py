"""A recording read in blocks, so that memory does not grow with its length."""

import math
import os
from pathlib import Path

import numpy as np

from mmjax.data.transforms import audio_ops

RATE = 16_000  # Hz, of all waveforms here
SHORTEST = 400  # samples: one frame of the log-mel spectrogram
SILENT = 10 ** (-70 / 20)  # peak below which a waveform is silence: ten steps of 16 bits


class Recording:
    """The waveform of an audio file at 16 kHz, the mean of its channels.

    Attributes:
      seconds: its length by the file's header.

    Raises:
      ValueError: no file, no audio in a format of libsndfile, a truncated file, or less than 25 ms.
    """

    def __init__(self, path: str | os.PathLike):
        import soundfile  # imported late: it loads libsndfile
        import soxr

        path = Path(path)
        if not path.is_file():
            raise ValueError(f"there is no file '{path}'")
        with open(path, "rb") as file:
            audio_ops.check_file(file)
        try:
            self._file = soundfile.SoundFile(path)
        except soundfile.SoundFileError as error:
            why = getattr(error, "error_string", str(error)).rstrip(".")
            raise ValueError(f"libsndfile does not read it ({why}): use WAV, FLAC or OGG") from None
        rate = self._file.samplerate
        if self._file.frames == audio_ops.UNKNOWN:
            raise ValueError("its header gives no usable length: write it to a file again")
        self.seconds = self._file.frames / rate
        if self.seconds * RATE < SHORTEST:
            raise ValueError(
                f"it has {self._file.frames} samples at {rate} Hz, less than one frame of "
                f"{1000 * SHORTEST // RATE} ms: leave it out"
            )
        self._resample = None if rate == RATE else soxr.ResampleStream(rate, RATE, 1)
        self._size = math.ceil(self._file.frames * RATE / rate)
        self._start, self._kept = 0, np.empty(0, np.float32)  # what was read from `_start` on
        self._ended = False

    @property
    def size(self) -> int:
        """The number of samples at 16 kHz."""
        return self._size

    def read(self, start: int, count: int) -> np.ndarray:
        """Samples from `start` on, [count] float32, fewer at the end; `start` never decreases.

        Raises:
          ValueError: damaged audio, or samples that are not finite.
        """
        while self._start + len(self._kept) < start + count and not self._ended:
            drop = min(max(0, start - self._start), len(self._kept))
            self._start, self._kept = self._start + drop, self._kept[drop:]
            self._kept = np.concatenate([self._kept, self._block()])
        begin = start - self._start
        return self._kept[begin : begin + count]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _block(self) -> np.ndarray:
        import soundfile

        try:
            block = self._file.read(audio_ops.BLOCK, dtype="float32", always_2d=True).mean(axis=1)
        except soundfile.SoundFileError as error:
            raise ValueError(f"it is damaged ({error}): copy it again") from None
        self._ended = len(block) < audio_ops.BLOCK
        if self._ended:
            at = self._file.tell()
            audio_ops.check_end(at, self._file.frames - at, self._file.samplerate)
        if not np.isfinite(block).all():
            raise ValueError("it has samples that are not finite: write it again")
        if self._resample is not None:
            block = self._resample.resample_chunk(block, last=self._ended)
        if self._ended:
            left = self._size - self._start - len(self._kept) - len(block)
            block = np.pad(block, (0, max(0, left)))[: len(block) + left]
        return block


def is_silent(waveform: np.ndarray) -> bool:
    """Whether no sample is above -70 dB of full scale."""
    return not len(waveform) or float(np.abs(waveform).max()) < SILENT


def quiet_cut(waveform: np.ndarray, earliest: int) -> int:
    """Where to cut a waveform with the least loss: the middle of its quietest 0.2 s from `earliest`
    on, in samples."""
    step = RATE // 50
    frames = waveform[earliest:][: (len(waveform) - earliest) // step * step].reshape(-1, step)
    energy = np.convolve(np.square(frames).mean(1), np.ones(10), mode="valid")
    return earliest + (int(energy.argmin()) + 5) * step
