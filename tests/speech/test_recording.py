"""Recordings read in blocks against whole files, and what is refused."""

import numpy as np
import pytest
import soundfile

from mmjax.data.transforms import audio_ops
from mmjax.speech.recording import RATE, Recording, is_silent, quiet_cut

RNG = np.random.default_rng(0)


def write(path, rate=RATE, seconds=1.0, channels=1, **kwargs):
    samples = 0.1 * RNG.normal(size=(round(seconds * rate), channels)).astype(np.float32)
    soundfile.write(path, samples, rate, **kwargs)
    return path


@pytest.mark.parametrize(
    ("rate", "channels", "name"),
    [(8000, 2, "a.wav"), (16000, 1, "a.flac"), (44100, 2, "a.ogg"), (48000, 1, "a.wav")],
)
def test_blocks_make_the_whole(tmp_path, monkeypatch, rate, channels, name):
    path = write(tmp_path / name, rate, 2.3, channels)
    whole = audio_ops.decode_at(path, RATE)
    monkeypatch.setattr(audio_ops, "BLOCK", 1000)
    recording = Recording(path)
    assert recording.size == len(whole)
    assert recording.seconds == pytest.approx(2.3, abs=1e-3)
    found, start = [], 0
    while start < recording.size:
        found.append(recording.read(start, 4321))
        start += len(found[-1])
        assert len(recording._kept) < 4321 + 4 * 2000 * RATE // rate  # noqa: SLF001
    recording.close()
    np.testing.assert_allclose(np.concatenate(found), whole, atol=2e-5)


def test_a_read_may_begin_within_the_last_one(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav")
    whole = audio_ops.decode_at(path, RATE)
    monkeypatch.setattr(audio_ops, "BLOCK", 700)
    recording = Recording(path)
    for start in (0, 100, 100, 5000, 15_000, 15_900, 16_000):
        np.testing.assert_array_equal(recording.read(start, 3000), whole[start : start + 3000])


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    whole = write(tmp_path / "whole.wav").read_bytes()
    float_path = tmp_path / "inf.wav"
    soundfile.write(float_path, np.full(1000, np.inf, np.float32), RATE, subtype="FLOAT")
    contents = {
        "empty": (b"", "0 bytes"),
        "text": (b"hello", "use WAV, FLAC or OGG"),
        "cut": (whole[:-100], "is truncated"),
        "video": (b"\0\0\0\x20ftypisom" + bytes(100), "ffmpeg -i"),
        "short": (write(tmp_path / "s.wav", 8000, 1 / 8000).read_bytes(), "1 samples at 8000 Hz"),
    }
    for name, (content, message) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            Recording(tmp_path / name)
    with pytest.raises(ValueError, match="no file"):
        Recording(tmp_path)
    with pytest.raises(ValueError, match="not finite"):
        Recording(float_path).read(0, 10)


def test_an_end_before_the_declared_one(tmp_path):
    whole = write(tmp_path / "a.mp3", seconds=3).read_bytes()
    (tmp_path / "a.mp3").write_bytes(whole[: len(whole) // 2])
    for read in (audio_ops.decode_audio, lambda path: Recording(path).read(0, 3 * RATE)):
        with pytest.raises(ValueError, match="declares 3.00 s: it is truncated"):
            read(tmp_path / "a.mp3")


def test_silence_and_the_quietest_cut():
    assert is_silent(np.zeros(0, np.float32)) and is_silent(np.full(9, 3e-4, np.float32))
    assert not is_silent(np.asarray([0, -4e-4], np.float32))
    waveform = RNG.normal(size=10 * RATE).astype(np.float32)
    waveform[2 * RATE : 3 * RATE] = 0  # too early
    waveform[round(7.9 * RATE) : round(8.1 * RATE)] *= 0.1
    assert abs(quiet_cut(waveform, 5 * RATE) - 8 * RATE) <= 0.05 * RATE
