"""Audio: decoding, and the log-mel spectrogram."""

import functools
import io

import numpy as np


def decode_audio(data: bytes) -> tuple[np.ndarray, int]:
    """Decode WAV, FLAC, OGG, MP3, ...: mono waveform [T] float32 (channel mean), and rate in Hz.

    Integer samples are in [-1, 1]; 16-bit ones are divided by 32768, 24-bit ones by 2^23. Floating
    point samples are not scaled.

    Raises:
      ValueError: bytes in no format of libsndfile, a damaged file, or samples that are not finite.
    """
    import soundfile  # imported late: it loads libsndfile

    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        why = getattr(error, "error_string", str(error)).rstrip(".")
        raise ValueError(
            f"{len(data)} bytes that start with {bytes(data[:12])!r} are no audio that libsndfile "
            f"reads ({why}): use WAV, FLAC or OGG"
        ) from None
    except (ValueError, MemoryError) as error:  # a FLAC stream of unknown length
        raise ValueError(
            f"the audio's header gives no usable length ({error}): write it to a file again"
        ) from None
    waveform = samples.mean(axis=1)
    if not np.isfinite(waveform).all():
        raise ValueError("the audio has samples that are not finite: write it again")
    return waveform, rate


def hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Slaney's mel scale: linear to 1000 Hz (15 mel), then logarithmic, 27 mel per factor of 6.4.

    Source: Slaney 1998, Auditory Toolbox, technical report 1998-010; as librosa's default.
    """
    hz = np.asarray(hz, np.float64)
    return np.where(
        hz < 1000, 3 * hz / 200, 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / np.log(6.4)
    )


def mel_to_hz(mel: np.ndarray) -> np.ndarray:
    """The inverse of `hz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    return np.where(mel < 15, 200 * mel / 3, 1000 * 6.4 ** ((mel - 15) / 27))


@functools.cache
def mel_filters(rate: int, window: int, mels: int) -> np.ndarray:
    """Triangular mel filters over the bins of a spectrum: [mels, window // 2 + 1] float32.

    Corners are evenly spaced in mel from 0 to rate / 2; each triangle has an area of 1 Hz (Slaney's
    norm), as in librosa and Whisper.

    Args:
      rate: Hz; window: length of the Fourier transform in samples.

    Raises:
      ValueError: more filters than the spectrum resolves, so that a filter would be empty.
    """
    bins = np.arange(window // 2 + 1) * rate / window
    corners = mel_to_hz(np.linspace(0, hz_to_mel(rate / 2), mels + 2))
    low, middle, high = (corners[i : mels + i, None] for i in range(3))
    rising, falling = (bins[None] - low) / (middle - low), (high - bins[None]) / (high - middle)
    filters = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    if not filters.any(axis=1).all():
        raise ValueError(
            f"{mels} mel filters are too many for {window} samples at {rate} Hz: some would be "
            "empty; use fewer, or a longer window"
        )
    return filters.astype(np.float32)


def log_mel(
    waveform: np.ndarray, rate: int, mels: int, window_ms: float = 32, hop_ms: float = 10
) -> np.ndarray:
    """Natural logarithm of the mel power spectrogram: [T] -> [1 + T // hop, mels] float32.

    Frame i is centered at sample i · hop, with zeros around the waveform; a periodic Hann window.
    Power is floored at 1e-10.
    """
    window, hop = round(rate * window_ms / 1000), round(rate * hop_ms / 1000)
    padded = np.pad(np.asarray(waveform, np.float32), (window // 2, window - window // 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    power = np.square(np.abs(np.fft.rfft(frames * hann[None], axis=1)))
    return np.log(np.maximum(power @ mel_filters(rate, window, mels).T, 1e-10)).astype(np.float32)
