"""Chroma features: the energy of each pitch class, on the host or a device."""

import functools
from typing import Any

import numpy as np

from mmjax.data.transforms.spectrogram import LIBROSA, Frames, matmul, power


def chroma(waveform: Any, rate: int, tuning: float | None = 0.0, frames: Frames = LIBROSA) -> Any:
    """Chromagram: [..., T] -> [..., frames, 12] float32, C first; the largest of a frame is 1.

    Args:
      rate: Hz.
      tuning: the deviation from A = 440 Hz in semitones; None estimates one for the whole array, on
        the host only.

    Source: `librosa.feature.chroma_stft`; Ellis 2007, "Chroma feature analysis and synthesis".
    """
    xp = waveform.__array_namespace__()
    spectra = power(waveform, frames)
    if tuning is None:
        tuning = estimate_tuning(spectra, rate)
    filters = chroma_filters(rate, frames.transform, float(tuning))
    classes = matmul(spectra, filters.T, xp)
    highest = classes.max(axis=-1, keepdims=True)
    return xp.where(
        highest < np.finfo(np.float32).tiny, classes, classes / xp.maximum(highest, 1e-37)
    )


@functools.lru_cache(64)
def chroma_filters(rate: int, window: int, tuning: float = 0.0) -> np.ndarray:
    """Weights of the bins of a spectrum for each pitch class: [12, window // 2 + 1] float32.

    Gaussian in pitch, of unit length per bin, weighted by a Gaussian of 2 octaves around octave 5
    (A = 440 Hz is the end of octave 4). Source: `librosa.filters.chroma`.
    """
    hz = np.arange(1, window) * rate / window
    pitch = 12 * _octaves(hz, tuning)
    pitch = np.concatenate([[pitch[0] - 18], pitch])  # 0 Hz: 1.5 octaves below the first bin
    width = np.concatenate([np.maximum(np.diff(pitch), 1), [1]])
    away = np.remainder(pitch[None] - np.arange(12)[:, None] + 6, 12) - 6
    weights = np.exp(-0.5 * (2 * away / width[None]) ** 2)
    weights /= np.linalg.norm(weights, axis=0, keepdims=True)
    weights *= np.exp(-0.5 * ((pitch / 12 - 5) / 2) ** 2)[None]
    return np.roll(weights, -3, axis=0)[:, : window // 2 + 1].astype(np.float32)


def estimate_tuning(spectra: np.ndarray, rate: int) -> float:
    """The deviation of most spectral peaks from A = 440 Hz, in semitones from -0.5 to 0.5.

    Peaks of power spectra [..., frames, bins] between 150 and 4000 Hz, of at least a tenth of
    their frame's maximum, interpolated by a parabola; those of at least the median power fill a
    histogram in steps of 0.01, whose highest bin is the result. Without peaks 0.

    Source: `librosa.estimate_tuning`.
    """
    bins = spectra.shape[-1]
    window = 2 * (bins - 1)
    left, middle, right = spectra[..., :-2], spectra[..., 1:-1], spectra[..., 2:]
    slope, curve = (right - left) / 2, right + left - 2 * middle
    inside = np.abs(slope) < np.abs(curve)  # else the parabola's top is not at this bin
    shift = np.where(inside, -slope / np.where(inside, curve, 1), 0)
    loud = np.where(spectra > 0.1 * spectra.max(axis=-1, keepdims=True), spectra, 0)
    peak = (loud[..., 1:-1] > loud[..., :-2]) & (loud[..., 1:-1] >= loud[..., 2:])
    hz = np.arange(1, bins - 1) * rate / window
    peak &= (hz >= 150) & (hz < min(4000, rate / 2))
    if not peak.any():
        return 0.0
    pitch = ((np.arange(1, bins - 1) + shift) * rate / window)[peak]
    height = (middle + 0.5 * slope * shift)[peak]
    pitch = pitch[height >= np.median(height)]
    residual = np.mod(12 * _octaves(pitch), 1)
    residual = np.where(residual >= 0.5, residual - 1, residual)
    counts, edges = np.histogram(residual, np.linspace(-0.5, 0.5, 101))
    return float(edges[counts.argmax()])


def _octaves(hz: np.ndarray, tuning: float = 0.0) -> np.ndarray:
    """Octaves above the A of 27.5 Hz, the 440 Hz of which is shifted by `tuning` semitones."""
    return np.log2(hz / (440 * 2 ** (tuning / 12) / 16))
