"""Steps on waveforms, and the features that a chain makes of them."""

import numpy as np
import pytest
from digits import wav

from mmjax.data.transforms import audio_ops, spectrogram
from mmjax.data.transforms import parse as transforms
from mmjax.data.transforms.parse import parse_batch

RNG = np.random.default_rng(0)
NOISE = RNG.normal(0, 0.1, 16000).astype(np.float32)


def run(chain, example, seed=0):
    return transforms.parse(chain)(example, np.random.default_rng(seed))


def test_a_file_becomes_a_waveform_of_one_rate_and_length():
    samples = RNG.integers(-9000, 9000, 2 * 11025)
    data = wav(samples, rate=22050, channels=2)  # half a second
    want = audio_ops.decode_at(data, 16000)
    long = run("waveform(0.25)", {"audio": data, "key": "a"})
    assert long["waveform"].dtype == np.float32 and set(long) == {"waveform", "key"}
    np.testing.assert_allclose(long["waveform"], want[:4000], atol=1e-6)
    short = run("waveform(1, rate=8000)", {"audio": data})["waveform"]
    assert short.shape == (8000,) and (short[4001:] == 0).all() and short[:4000].any()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "there is no audio"),
        (wav([]), "no samples"),
        (b"\x1aE\xdf\xa3" + bytes(99), "a Matroska or WebM file.*ffmpeg"),
        (wav([1, 2, 3])[:-2], "it is truncated"),
    ],
)
def test_errors_name_the_example(data, why):
    with pytest.raises(ValueError, match=f"cannot decode 'audio' of example 'a': .*{why}"):
        run("waveform(1)", {"audio": data, "key": "a"})


def test_features_of_a_chain():
    x = {"waveform": NOISE}
    np.testing.assert_array_equal(run("whisper_mel", x)["audio"], spectrogram.whisper(NOISE))
    assert run("mfcc(13)", x)["audio"].shape == (101, 13)
    assert run("mfcc(centered=False)", x)["audio"].shape == (98, 40)
    assert run("chromagram", x)["audio"].shape == (32, 12)
    bank = spectrogram.kaldi(NOISE)
    short = run("kaldi_fbank(50)", x)["audio"]
    np.testing.assert_allclose(short, (bank[:50] + 4.2677393) / (2 * 4.5689974), rtol=1e-5)
    long = run("kaldi_fbank(120, mean=1, std=2)", x)["audio"]
    assert long.shape == (120, 128) and (long[98:] == -0.25).all()
    assert "waveform" not in run("mfcc", x) and long.dtype == np.float32


def test_what_is_missing_or_wrong_is_said():
    with pytest.raises(ValueError, match="put waveform.seconds. first in the chain"):
        run("whisper_mel", {"audio": b"x"})
    with pytest.raises(ValueError, match="a waveform of 9 samples has no frame: pad it"):
        run("whisper_mel", {"waveform": NOISE[:9]})
    with pytest.raises(ValueError, match="before spec_augment"):
        run("spec_augment", {"waveform": NOISE})
    wrong = {
        "waveform(0)": "seconds is 0; it must be above 0",
        "add_noise((9, 3))": "snr is .9, 3.; it must be a number, or",
        "speed((0, 1))": "factor is .0, 1.; it must be at least 0.1",
        "time_shift(2)": "fraction is 2; it must be from 0 to 1",
        "mfcc(50, 40)": "40 mel filters have no 50 coefficients",
        "mfcc(0)": "coefficients is 0; it must be above 0",
        "mfcc(hop_ms=0)": "480 samples every 0: both must be at least 1",
        "kaldi_fbank(9, std=0)": "std is 0; it must be above 0",
        "spec_augment(2)": "time is 2; it must be from 0 to 1",
        "clap_input(0)": "seconds is 0; it must be above 0",
        "clap_input(1, low=20000)": "64 mel filters from 20000 to 14000 Hz: .* within 0 to 24000",
        "sound(0)": "rate is 0; it must be above 0",
        "speech_mel(9, 0)": "0 mel filters from 0",
    }
    for chain, why in wrong.items():
        with pytest.raises(ValueError, match=why):
            transforms.parse(chain)


def test_noise_has_the_ratio_that_is_asked_for():
    tone = {"waveform": np.sin(np.arange(16000) * 0.3).astype(np.float32)}
    noisy = run("add_noise(10)", tone)["waveform"]
    added = noisy - tone["waveform"]
    ratio = np.square(tone["waveform"]).mean() / np.square(added).mean()
    np.testing.assert_allclose(10 * np.log10(ratio), 10, atol=0.2)
    assert noisy.dtype == np.float32
    silence = {"waveform": np.zeros(100, np.float32)}
    assert not run("add_noise(10)", silence)["waveform"].any()
    assert run("add_noise(10, p=0.0)", tone)["waveform"] is tone["waveform"]


def test_speed_changes_the_pitch_and_keeps_the_length():
    tone = {"waveform": np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32)}
    fast = run("speed(1.25)", tone)["waveform"]
    assert fast.shape == (16000,) and (fast[12801:] == 0).all()
    assert np.abs(np.fft.rfft(fast[:12800])).argmax() * 16000 / 12800 == 550
    slow = run("speed(0.8)", tone)["waveform"]
    assert slow.shape == (16000,) and slow[-100:].any()


def test_a_shift_moves_everything_and_fills_with_silence():
    x = np.arange(1, 101, dtype=np.float32)
    seen = set()
    for seed in range(20):
        moved = run("time_shift(0.3)", {"waveform": x}, seed)["waveform"]
        kept = np.flatnonzero(moved)
        by = kept[0] - (moved[kept[0]] - 1)
        seen.add(int(np.sign(by)))
        assert moved.shape == x.shape and abs(by) <= 30 and len(kept) == 100 - abs(by)
        np.testing.assert_array_equal(np.diff(moved[kept]), 1)
    assert seen >= {-1, 1}


def test_standardized_features():
    audio = run("mfcc | standardize", {"waveform": NOISE})["audio"]
    np.testing.assert_allclose(audio.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(audio.std(0), 1, atol=1e-4)
    assert audio.dtype == np.float32
    silence = run("mfcc | standardize", {"waveform": np.zeros(16000, np.float32)})["audio"]
    np.testing.assert_allclose(silence, 0, atol=1e-6)


def test_masks_are_bands_of_the_mean():
    audio = RNG.normal(size=(50, 20)).astype(np.float32)
    for seed in range(10):
        masked = run("spec_augment(0.2, 0.25, masks=1)", {"audio": audio}, seed)["audio"]
        changed = masked != audio
        assert (masked[changed] == audio.mean()).all()
        frames, features = changed.all(axis=1), changed.all(axis=0)
        assert frames.sum() <= 10 and features.sum() <= 5
        np.testing.assert_array_equal(changed, frames[:, None] | features[None])
    assert not np.shares_memory(masked, audio)


def test_mixup_of_waveforms():
    batch = {"waveform": np.eye(4, 6, dtype=np.float32), "label": np.array([0, 1, 2, 2])}
    mixed = parse_batch("mixup(0.4, 3)")(batch, np.random.default_rng(1))
    weight = mixed["waveform"][0, 0]
    assert 0 < weight < 1
    np.testing.assert_allclose(
        mixed["waveform"][:2, :2], [[weight, 1 - weight], [1 - weight, weight]]
    )
    np.testing.assert_allclose(mixed["label_probs"][0], [weight, 1 - weight, 0])
    np.testing.assert_allclose(mixed["label_probs"][3], [0, 0, 1])
    with pytest.raises(ValueError, match="mixup mixes 'image' or 'waveform', and the batch has"):
        parse_batch("mixup(0.4, 3)")({"label": np.zeros(2, int)}, RNG)


def test_samples_of_a_source_bring_their_rate():
    """The same recording as a file and as samples at 44.1 kHz, which none reads as 16 kHz."""
    samples = RNG.integers(-9000, 9000, 44100)
    data = wav(samples, rate=44100)
    given = {
        "waveform": (samples / 32768).astype(np.float32),
        "waveform_rate": np.int32(44100),
        "key": "a",
    }
    for chain in ("waveform(0.5)", "sound(8000)", "waveform(2) | mfcc(13)"):
        want, found = (run(chain, example) for example in ({"audio": data, "key": "a"}, given))
        assert want.keys() == found.keys()
        for name in want.keys() - {"key"}:
            np.testing.assert_array_equal(want[name], found[name])
    with pytest.raises(ValueError, match="put waveform.seconds. first in the chain"):
        run("whisper_mel", given)
    for wrong, why in (
        ({"waveform_rate": None}, "example 'a' needs its sampling rate in Hz as 'waveform_rate'"),
        ({"waveform": samples}, "must be finite float32 in .-1, 1., and is int64"),
        ({"waveform": given["waveform"][None]}, r"must be an array \[T\], and is \(1, 44100\)"),
    ):
        with pytest.raises(ValueError, match=why):
            run("waveform(1)", given | wrong)


@pytest.mark.parametrize(
    "chain",
    [
        "waveform(1, rate=8000) | mfcc",
        "waveform(1, rate=44100) | add_noise | whisper_mel",
        "sound(16000) | speech_mel(100, 40, rate=8000)",
    ],
)
def test_a_step_for_another_rate_is_refused(chain):
    with pytest.raises(ValueError, match="Hz, and .* takes one at .* Hz: give both the same rate"):
        transforms.parse(chain)
