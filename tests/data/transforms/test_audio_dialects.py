"""Features beside librosa, torchaudio and transformers (tests/golden/make_audio.py), and the same
on a device."""

from pathlib import Path

import jax
import numpy as np
import pytest

from mmjax.data.transforms import audio_ops, chroma, spectrogram
from mmjax.data.transforms.spectrogram import Frames

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "audio" / "features.npz")
WAVEFORM = GOLDEN["waveform"].astype(np.float32) / 32768


def librosa_db(x):
    filters = spectrogram.mel_filters(16000, 2048, 64)
    return spectrogram.decibels(
        spectrogram.mel_power(x, spectrogram.LIBROSA, filters), 60.0, relative=True
    )


def librosa_htk(x):
    filters = spectrogram.mel_filters(16000, 400, 40, "htk", None, 50, 7000)
    frames = Frames(400, 160, edges="constant")
    return spectrogram.decibels(spectrogram.mel_power(x, frames, filters))


def clap(scale, norm):
    filters = spectrogram.mel_filters(48000, 1024, 64, scale, norm, 50, 14000)
    return lambda x: spectrogram.decibels(spectrogram.mel_power(x, Frames(1024, 480), filters))


def mel_512(edges):
    filters = spectrogram.mel_filters(16000, 512, 40)
    return lambda x: spectrogram.mel_power(x, Frames(512, 512, edges=edges), filters)


FEATURES = {
    "whisper_80": spectrogram.whisper,
    "whisper_128": lambda x: spectrogram.whisper(x, 128),
    "kaldi": spectrogram.kaldi,
    "kaldi_8k": lambda x: spectrogram.kaldi(x, 8000, 40),
    "clap_fusion": clap("htk", None),
    "clap_rand_trunc": clap("slaney", "slaney"),
    "librosa_db": librosa_db,
    "librosa_htk": librosa_htk,
    "librosa_zeros": mel_512("constant"),
    "torchaudio_reflect": mel_512("reflect"),
    "mfcc": lambda x: spectrogram.mfcc(x, 16000, 13),
    "mfcc_40": lambda x: spectrogram.mfcc(x, 16000, 40, 40, Frames(480, 160, edges="constant")),
    "chroma_0.0": lambda x: chroma.chroma(x, 16000),
    "chroma_-0.23": lambda x: chroma.chroma(x, 16000, -0.23),
    "chroma_None": lambda x: chroma.chroma(x, 16000, None),
}


@pytest.mark.parametrize("name", FEATURES)
def test_beside_the_original_implementation(name):
    got, want = FEATURES[name](WAVEFORM), GOLDEN[name]
    assert got.shape == want.shape and got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_the_tuning_is_estimated():
    spectra = spectrogram.power(WAVEFORM, spectrogram.LIBROSA)
    np.testing.assert_allclose(chroma.estimate_tuning(spectra, 16000), GOLDEN["tuning"], rtol=1e-6)
    silence = np.zeros(4000, np.float32)
    assert (chroma.chroma(silence, 16000, None) == 0).all()


@pytest.mark.parametrize("rate", [22050, 8000])
def test_resampling(rate):
    got = audio_ops.resample(WAVEFORM[:2000], 16000, rate)
    np.testing.assert_allclose(got, GOLDEN[f"resampled_{rate}"], atol=1e-6)


def test_on_a_device_under_jit():
    """One program for all; two clips of different loudness, each on its own."""
    on_device = [name for name in FEATURES if name != "chroma_None"]
    clips = np.stack([WAVEFORM, WAVEFORM[::-1] / 30])
    run = jax.jit(lambda x: {name: FEATURES[name](x) for name in on_device})
    found = run(clips)
    for name in on_device:
        assert found[name].dtype == np.float32
        want = [FEATURES[name](clip) for clip in clips]
        np.testing.assert_allclose(found[name], want, rtol=1e-4, atol=1e-4, err_msg=name)
        np.testing.assert_array_equal(FEATURES[name](clips), want)


def test_edges_of_zeros_are_not_edges_of_reflections():
    """librosa against torchaudio: only the first and last frames differ, and these a lot."""
    zeros, reflected = GOLDEN["librosa_zeros"], GOLDEN["torchaudio_reflect"]
    np.testing.assert_allclose(zeros[1:-1], reflected[1:-1], rtol=1e-4, atol=1e-6)
    assert abs(zeros[0] - reflected[0]).max() > 0.2 * reflected[0].max()


def test_the_maximum_is_that_of_each_clip():
    """openai-whisper takes that of the batch, so that a quiet clip depends on its neighbors."""
    quiet = WAVEFORM / 1000
    batch = spectrogram.whisper(np.stack([quiet, WAVEFORM]))
    np.testing.assert_array_equal(batch[0], spectrogram.whisper(quiet))
    assert batch[0].max() - batch[0].min() <= 2


def test_a_long_waveform_in_several_threads_is_that_of_its_parts(monkeypatch):
    x = np.tile(WAVEFORM, 4)
    want = spectrogram.kaldi(x)
    monkeypatch.setattr(spectrogram, "BLOCK", 7)  # so that threads are used
    np.testing.assert_allclose(spectrogram.kaldi(x), want, atol=1e-5)


def test_waveforms_that_are_too_short():
    one = np.ones(1, np.float32)
    assert clap("htk", None)(one).shape == (1, 64)
    assert spectrogram.whisper(np.ones(160, np.float32)).shape == (1, 80)
    for samples in (0, 399):
        with pytest.raises(ValueError, match=f"of {samples} samples is shorter than a frame"):
            spectrogram.kaldi(np.ones(samples, np.float32))
