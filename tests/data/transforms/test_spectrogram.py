import numpy as np
import pytest
from digits import wav
from scipy import signal

from mmjax.data.transforms import parse as transforms
from mmjax.data.transforms import spectrogram

RNG = np.random.default_rng(0)


def test_mel_scale_against_published_values():
    # librosa's documentation of hz_to_mel, mel_to_hz and mel_frequencies(40).
    np.testing.assert_allclose(spectrogram.hz_to_mel([60, 110, 220, 440]), [0.9, 1.65, 3.3, 6.6])
    np.testing.assert_allclose(
        spectrogram.mel_to_hz([1, 2, 3, 4, 5]) * 3, [200, 400, 600, 800, 1000]
    )
    points = spectrogram.mel_to_hz(np.linspace(0, spectrogram.hz_to_mel(11025), 40))
    published = {1: 85.317, 11: 938.49, 12: 1024.856, 20: 2071.84, 30: 4994.285, 39: 11025.0}
    for i, hz in published.items():
        np.testing.assert_allclose(points[i], hz, atol=1e-3)
    hz = np.linspace(1, 4000, 50)
    np.testing.assert_allclose(spectrogram.mel_to_hz(spectrogram.hz_to_mel(hz)), hz)


def test_filters_are_triangles_of_area_one():
    filters = spectrogram.mel_filters(16000, 4096, 20).astype(np.float64)
    np.testing.assert_allclose(filters.sum(1) * 16000 / 4096, 1, atol=0.01)
    corners = spectrogram.mel_to_hz(np.linspace(0, spectrogram.hz_to_mel(8000), 22))
    bins = np.arange(2049) * 16000 / 4096
    for i, row in enumerate(filters):
        want = np.interp(bins, corners[i : i + 3], [0, 2 / (corners[i + 2] - corners[i]), 0])
        np.testing.assert_allclose(row, want, atol=1e-7)


def test_too_many_filters_are_refused():
    with pytest.raises(ValueError, match="80 mel filters are too many for 64 samples"):
        spectrogram.mel_filters(8000, 64, 80)


@pytest.mark.parametrize("window_ms", [32, 25.125])  # 256 and 201 samples
def test_log_mel_against_scipy(window_ms):
    x = RNG.normal(size=1000).astype(np.float32)
    got = spectrogram.log_mel(x, 8000, 12, window_ms, 10)
    size = round(8 * window_ms)
    padded = np.pad(x, (size // 2, size - size // 2))
    _, _, z = signal.stft(
        padded, window="hann", nperseg=size, noverlap=size - 80, boundary=None, padded=False
    )
    power = np.abs(z.T * signal.get_window("hann", size).sum()) ** 2  # undo scipy's scaling
    assert got.shape == (1 + 1000 // 80, 12) and got.dtype == np.float32
    want = np.log(power @ spectrogram.mel_filters(8000, size, 12).T)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_a_tone_is_heard_in_its_own_filter():
    t = np.arange(8000) / 8000
    corners = spectrogram.mel_to_hz(np.linspace(0, spectrogram.hz_to_mel(4000), 34))
    for band in (3, 15, 28):
        tone = np.sin(2 * np.pi * corners[band + 1] * t)
        frame = spectrogram.log_mel(tone, 8000, 32)[50]
        assert frame.argmax() == band


def test_the_transform_pads_cuts_and_does_not_hear_how_loud_it_is():
    step = transforms.parse("log_mel(20, 8, top_db=40)")
    samples = RNG.integers(-3000, 3000, 9000)
    long = step({"audio": wav(samples)}, None)["audio"]
    short = step({"audio": wav(samples[:400])}, None)["audio"]
    assert short.shape == long.shape == (20, 8) and short.dtype == np.float32
    assert short.max() == long.max() == 1 and (short[-5:] == -1).all()
    louder = step({"audio": wav(3 * samples)}, None)["audio"]
    np.testing.assert_allclose(louder, long, atol=1e-3)
    # By hand: 20 dB below the loudest is in the middle of 40.
    whole = spectrogram.log_mel(samples[: 19 * 80] / 32768, 8000, 8) * 10 / np.log(10)
    np.testing.assert_allclose(long, 1 + (whole - whole.max()) / 20, atol=1e-3)
    silence = step({"audio": wav(np.zeros(400))}, None)["audio"]
    assert (silence == 1).all()
    with pytest.raises(ValueError, match="cannot decode 'audio' of example 'a'.*are no audio"):
        step({"audio": b"?", "key": "a"}, None)
