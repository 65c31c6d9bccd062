"""Spectrograms, mel filters, and log-mel features in the dialects of published models.

Every function of a waveform [..., T] takes a NumPy array, on the host, or a JAX array, also under
`jit`: one definition, in fp32. Features are [..., frames, features].
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np

FLOOR = 1e-10  # of power, before a logarithm
BLOCK = 256  # frames that the host transforms at a time
_KEPT: dict[int, tuple[np.ndarray, Any]] = {}  # id of filters -> they, and as a sparse matrix
THREADED = 8  # blocks from which on it uses several threads


@dataclasses.dataclass(frozen=True)
class Frames:
    """How a waveform is cut into frames.

    Attributes:
      window: length of a frame in samples; hop: samples from one frame to the next.
      fft: length of the Fourier transform, zeros behind the frame; None: as the window.
      edges: "reflect" or "constant" (zeros): frame i is centered at sample i · hop, with window
        // 2 samples around the waveform; "inside": frame i begins at sample i · hop, and only
        whole frames count.
      symmetric: a Hann window that is 0 at both ends, instead of a periodic one.
      preemphasis: c in x[t] - c · x[t - 1], within each frame, after its mean is subtracted
        (Kaldi); None: neither.
    """

    window: int
    hop: int
    fft: int | None = None
    edges: str = "reflect"
    symmetric: bool = False
    preemphasis: float | None = None

    def __post_init__(self):
        if self.window < 1 or self.hop < 1:
            raise ValueError(
                f"frames of {self.window} samples every {self.hop}: both must be at least 1"
            )

    @property
    def transform(self) -> int:
        """Length of the Fourier transform."""
        return self.fft or self.window

    def count(self, samples: int) -> int:
        """The number of frames of a waveform."""
        return 1 + (samples - self.window * (self.edges == "inside")) // self.hop


WHISPER = Frames(400, 160)
LIBROSA = Frames(2048, 512, edges="constant")
KALDI = Frames(400, 160, fft=512, edges="inside", symmetric=True, preemphasis=0.97)


def power(waveform: Any, frames: Frames) -> Any:
    """Power spectrogram |X|²: [..., T] -> [..., frames, 1 + fft // 2] float32.

    Raises:
      ValueError: an empty waveform, or one shorter than a frame where only whole frames count.
    """
    return _by_frame(waveform, frames, 1 + frames.transform // 2, lambda spectra: spectra)


def mel_power(waveform: Any, frames: Frames, filters: np.ndarray) -> Any:
    """Mel power spectrogram: [..., T] -> [..., frames, mels] float32, `filters` [mels, bins].

    Raises:
      ValueError: as `power`.
    """
    xp = waveform.__array_namespace__()
    if xp is np:
        few = _sparse(filters)
        return _by_frame(waveform, frames, len(filters), lambda spectra: few @ spectra)
    return _by_frame(waveform, frames, len(filters), lambda x: matmul(filters, x, xp))


def _sparse(filters: np.ndarray) -> Any:
    """The filters as a sparse matrix, as a bin is in one or two of them; the last ones are kept."""
    from scipy import sparse

    found = _KEPT.get(id(filters))
    if found is None or found[0] is not filters:
        found = filters, sparse.csr_array(filters)
        for key in list(_KEPT)[:-15]:
            _KEPT.pop(key, None)  # perhaps by another thread
        _KEPT[id(filters)] = found
    return found[1]


def whisper(waveform: Any, mels: int = 80) -> Any:
    """Whisper's features of audio at 16 kHz: [..., T] -> [..., T // 160, mels] float32.

    log10 of the mel power, clamped to 8 below the clip's maximum, then (x + 4) / 4. The maximum is
    that of each clip, as in transformers; openai-whisper takes that of the whole batch.

    Source: Radford et al. 2022 (arXiv 2212.04356), section 2.2; `whisper/audio.py`.
    """
    xp = waveform.__array_namespace__()
    if waveform.shape[-1] < WHISPER.hop:
        raise ValueError(f"a waveform of {waveform.shape[-1]} samples has no frame: pad it")
    mel = mel_power(waveform, WHISPER, mel_filters(16000, 400, mels))[..., :-1, :]
    log = xp.log10(xp.maximum(mel, FLOOR))
    return (xp.maximum(log, log.max(axis=(-2, -1), keepdims=True) - 8) + 4) / 4


def kaldi(waveform: Any, rate: int = 16000, mels: int = 128) -> Any:
    """Kaldi's filter bank as AST uses it: [..., T] -> [..., frames, mels] float32.

    Frames of 25 ms every 10 ms without dither, the symmetric Hann window, and the natural
    logarithm of at least 2⁻²³. Filters begin at 20 Hz and are triangles on the mel scale; those
    between two bins stay empty.

    Source: `torchaudio.compliance.kaldi.fbank`, window_type "hanning"; Gong et al. 2021
    (arXiv 2104.01778), section 2.
    """
    xp = waveform.__array_namespace__()
    window, hop = rate * 25 // 1000, rate // 100
    fft = 1 << (window - 1).bit_length()
    frames = dataclasses.replace(KALDI, window=window, hop=hop, fft=fft)
    filters = mel_filters(rate, fft, mels, "kaldi", None, 20)
    return xp.log(xp.maximum(mel_power(waveform, frames, filters), 2.0**-23))


def decibels(power: Any, top_db: float | None = None, relative: bool = False) -> Any:
    """10 log10 of power [..., frames, features], floored at 1e-10, for each clip on its own.

    Args:
      top_db: clamp to this many decibels below the clip's maximum.
      relative: 0 is the clip's maximum, not a power of 1.

    Source: `librosa.power_to_db`, which takes the maximum over the whole array.
    """
    xp = power.__array_namespace__()
    log = 10 * xp.log10(xp.maximum(power, FLOOR))
    highest = log.max(axis=(-2, -1), keepdims=True)
    if top_db is not None:
        log = xp.maximum(log, highest - top_db)
    return log - highest if relative else log


def mfcc(
    waveform: Any, rate: int, coefficients: int = 20, mels: int = 128, frames: Frames = LIBROSA
) -> Any:
    """Mel-frequency cepstral coefficients: [..., T] -> [..., frames, coefficients] float32.

    The orthonormal DCT-II of the mel decibels (Slaney's filters), which are clamped to 80 below the
    clip's maximum. Source: `librosa.feature.mfcc`.
    """
    filters = mel_filters(rate, frames.transform, mels)
    log = decibels(mel_power(waveform, frames, filters), 80.0)
    return matmul(log, _cosines(mels, coefficients), log.__array_namespace__())


@functools.cache
def _cosines(size: int, coefficients: int) -> np.ndarray:
    """The first columns of the orthonormal DCT-II: [size, coefficients] float32."""
    n, k = np.arange(size)[:, None] + 0.5, np.arange(coefficients)[None]
    scale = np.where(k == 0, np.sqrt(1 / size), np.sqrt(2 / size))
    return (scale * np.cos(np.pi * n * k / size)).astype(np.float32)


def log_mel(
    waveform: np.ndarray, rate: int, mels: int, window_ms: float = 32, hop_ms: float = 10
) -> np.ndarray:
    """Natural logarithm of the mel power spectrogram: [T] -> [1 + T // hop, mels] float32.

    Frame i is centered at sample i · hop, with zeros around the waveform; Slaney's filters. By
    NumPy's transform, so that batches stay, bit for bit, what finished runs have logged.
    """
    window, hop = round(rate * window_ms / 1000), round(rate * hop_ms / 1000)
    frames = _windows(waveform, Frames(window, hop, edges="constant"), np).T
    spectrum = np.square(np.abs(np.fft.rfft(frames * hann(window)[None], axis=1)))
    return np.log(np.maximum(spectrum @ mel_filters(rate, window, mels).T, FLOOR))


def hz_to_mel(hz: Any, scale: str = "slaney") -> np.ndarray:
    """A frequency on the mel scale.

    "slaney": linear to 1000 Hz (15 mel), then logarithmic, 27 mel per factor of 6.4; "htk" and
    "kaldi": 1127 ln(1 + f / 700).

    Source: Slaney 1998, Auditory Toolbox, technical report 1998-010, librosa's default; The HTK
    Book 3.4, equation 5.13.
    """
    hz = np.asarray(hz, np.float64)
    if scale != "slaney":
        return 1127 * np.log1p(hz / 700)
    return np.where(
        hz < 1000, 3 * hz / 200, 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / np.log(6.4)
    )


def mel_to_hz(mel: Any, scale: str = "slaney") -> np.ndarray:
    """The inverse of `hz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    if scale != "slaney":
        return 700 * np.expm1(mel / 1127)
    return np.where(mel < 15, 200 * mel / 3, 1000 * 6.4 ** ((mel - 15) / 27))


@functools.cache
def mel_filters(
    rate: int,
    window: int,
    mels: int,
    scale: str = "slaney",
    norm: str | None = "slaney",
    low: float = 0,
    high: float | None = None,
) -> np.ndarray:
    """Triangular mel filters over the bins of a spectrum: [mels, window // 2 + 1] float32.

    Corners are evenly spaced in mel from `low` to `high`.

    Args:
      rate: Hz; window: length of the Fourier transform in samples.
      scale: "slaney", "htk", or "kaldi": HTK's with sides that are straight in mel instead of Hz.
      norm: "slaney": each triangle has an area of 1 Hz; None: a height of 1.
      low, high: Hz; high None: rate / 2.

    Raises:
      ValueError: no filters, frequencies that the spectrum does not have, or more filters than it
        resolves, so that one would be empty (Kaldi's may be).
    """
    high = rate / 2 if high is None else high
    if mels < 1 or not 0 <= low < high <= rate / 2:
        raise ValueError(
            f"{mels} mel filters from {low} to {high} Hz: there must be at least 1, within 0 to "
            f"{rate / 2:g} Hz, half the sample rate"
        )
    bins = np.arange(window // 2 + 1) * rate / window
    ends = hz_to_mel([low, high], scale)
    corners = np.linspace(*ends, mels + 2)
    if scale == "kaldi":
        bins = hz_to_mel(bins, scale)
    else:
        corners = mel_to_hz(corners, scale)
    below, middle, above = (corners[i : mels + i, None] for i in range(3))
    rising, falling = (
        (bins[None] - below) / (middle - below),
        (above - bins[None]) / (above - middle),
    )
    filters = np.maximum(0, np.minimum(rising, falling))
    if norm == "slaney":
        filters = filters * 2 / (above - below)
    if scale != "kaldi" and not filters.any(axis=1).all():
        raise ValueError(
            f"{mels} mel filters are too many for {window} samples at {rate} Hz: some would be "
            "empty; use fewer, or a longer window"
        )
    return filters.astype(np.float32)


@functools.cache
def hann(window: int, symmetric: bool = False) -> np.ndarray:
    """Hann window [window] float32: periodic, or 0 at both ends."""
    turns = np.arange(window) / (window - symmetric)
    return (0.5 - 0.5 * np.cos(2 * np.pi * turns)).astype(np.float32)


def _by_frame(waveform: Any, frames: Frames, size: int, f: Callable[[Any], Any]) -> Any:
    """f of power spectra, [bins, F] -> [size, F], for a waveform: [..., T] -> [..., F, size].

    The host takes a few frames at a time, which stay in a core's cache, and several cores for a
    long waveform.
    """
    xp = waveform.__array_namespace__()
    windows = _windows(waveform, frames, xp)
    if xp is not np:
        return xp.swapaxes(f(_power(windows, frames, xp)), -1, -2)
    *clips, _, count = windows.shape
    result = np.empty((*clips, count, size), np.float32)

    def write(clip: tuple[int, ...], at: int) -> None:
        result[clip][at : at + BLOCK] = f(_power(windows[clip][:, at : at + BLOCK], frames, np)).T

    blocks = [(clip, at) for clip in np.ndindex(*clips) for at in range(0, count, BLOCK)]
    if len(blocks) < THREADED:
        for block in blocks:
            write(*block)
    else:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            list(pool.map(write, *zip(*blocks)))
    return result


def _windows(waveform: Any, frames: Frames, xp: ModuleType) -> Any:
    """The frames of a waveform: [..., T] -> [..., window, F] float32; a view on the host."""
    samples = waveform.shape[-1]
    count = frames.count(samples)
    if samples == 0 or count < 1:
        raise ValueError(
            f"a waveform of {samples} samples is shorter than a frame of {frames.window}: pad it"
        )
    waveform = waveform.astype(xp.float32)
    if frames.edges != "inside":
        half = frames.window // 2
        sides = [(0, 0)] * (waveform.ndim - 1) + [(half, frames.window - half)]
        waveform = xp.pad(waveform, sides, mode=frames.edges)
    if xp is np:
        views = np.lib.stride_tricks.sliding_window_view(waveform, frames.window, axis=-1)
        return np.swapaxes(views[..., : count * frames.hop : frames.hop, :], -1, -2)
    starts, inside = np.arange(count) * frames.hop, np.arange(frames.window)
    return waveform[..., inside[:, None] + starts[None]]


def _power(windows: Any, frames: Frames, xp: ModuleType) -> Any:
    """Frames [..., window, F] -> their power spectra [..., bins, F]."""
    if frames.preemphasis is not None:
        windows = windows - windows.mean(axis=-2, keepdims=True)
        before = xp.concatenate([windows[..., :1, :], windows[..., :-1, :]], axis=-2)
        windows = windows - frames.preemphasis * before
    window = hann(frames.window, frames.symmetric).reshape(*[1] * (windows.ndim - 2), -1, 1)
    size = frames.transform
    if xp is np:
        from scipy import fft  # in fp32 twice as fast as NumPy's

        # Each frame is contiguous in memory.
        windows = np.multiply(windows.mT, window.mT, order="C")
        spectrum = fft.rfft(windows, size, overwrite_x=True).mT
    else:
        spectrum = xp.fft.rfft(windows * window, size, axis=-2)
    return xp.square(spectrum.real) + xp.square(spectrum.imag)


def matmul(x: Any, y: Any, xp: ModuleType) -> Any:
    """x @ y in fp32 on every device: TPUs default to bf16."""
    return x @ y if xp is np else xp.matmul(x, y, precision="highest")
