"""Synthetic lips, and sequences of spoken digits with them."""

from pathlib import Path

import numpy as np
import pytest
from digits import wav

from mmjax.data.builders import fsdd, lip_digits, lips
from mmjax.data.open_source import open_source
from mmjax.data.transforms import parse as transforms
from mmjax.data.transforms.audio_ops import decode_audio
from mmjax.data.transforms.decode import decode_image


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A small set of loud recordings of 0.2 s, each with 0.1 s of silence at both ends."""
    folder = tmp_path_factory.mktemp("fsdd")
    tone = np.pad(8000 * np.sin(np.arange(1600) / 3), 800)
    for speaker in fsdd.SPEAKERS:
        for digit in range(10):
            (folder / f"{digit}_{speaker}_0.wav").write_bytes(wav(tone))
    long = wav(8000 * np.sin(np.arange(8000) / 3))  # 1 s: left out
    (folder / "3_theo_1.wav").write_bytes(long)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lip_digits, "SEQUENCES", 6)
        config = {"kind": "tfds", "name": "lip_digits", "split": "theo", "root": str(folder)}
        return open_source(config | {"data_dir": str(folder / "cache")})


def test_a_clip_has_as_many_frames_as_sound(source):
    assert len(source) == 6
    for i in range(6):
        example = source[i]
        sound, rate = decode_audio(example["audio"])
        assert rate == 8000 and len(sound) == 320 * len(example["video"]) <= 320 * 48
        assert decode_image(example["video"][0]).shape == (24, 24, 3)
        words = example["captions"][0].split()
        assert 1 <= len(words) <= 3 and set(words) <= set(lips.DIGITS)
        assert example["speaker"] == "theo" and example["key"].endswith(f"theo[{i}]")
        loud = np.abs(sound) > 0.1
        assert 1400 * len(words) < loud.sum() < 1600 * len(words)  # trimmed, and no long one
    meta = source.meta(2)
    assert "video" not in meta and meta["captions"] == source[2]["captions"]


def test_rows_of_a_clip(source):
    config = "decode_video(48, 24) | sound(8000) | speech_mel(192, 20, rate=8000)"
    row = transforms.parse(config)(source[0], None)
    frames = int(row["video_mask"].sum())
    assert row["video"].shape == (48, 24, 24, 3) and row["video"].dtype == np.uint8
    assert row["audio"].shape == (192, 20) and row["audio"].dtype == np.float32
    assert row["audio_mask"].sum() == 4 * frames == 4 * len(source[0]["video"])
    assert not row["video"][frames:].any() and not row["audio"][4 * frames :].any()
    heard = row["audio"][: 4 * frames]
    np.testing.assert_allclose(heard.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(heard.std(0), 1, atol=1e-2)


def test_the_mouth_is_open_while_there_is_sound(source):
    dark, loud = [], []
    for i in range(len(source)):
        video = transforms.parse("decode_video(48, 24)")(source[i], None)["video"]
        sound = decode_audio(source[i]["audio"])[0].reshape(-1, 320)
        gray = video[: len(sound)].mean(3)
        dark.append((gray < np.median(gray) / 2).mean((1, 2)))
        loud.append(sound.std(1) > 0.2)
    dark, loud = np.concatenate(dark), np.concatenate(loud)
    assert dark[loud].mean() > 2 * dark[~loud].mean()


def test_a_longer_clip_is_refused(source):
    for chain, what in (
        ("decode_video(9, 24)", "video"),
        ("sound(8000) | speech_mel(9, 20, rate=8000)", "au"),
    ):
        with pytest.raises(ValueError, match=f"'{what}.*has .* frames and 9 are kept"):
            transforms.parse(chain)(source[0], None)
    with pytest.raises(ValueError, match="put sound.rate. before speech_mel"):
        transforms.parse("speech_mel(9, 20)")(source[0], None)
    with pytest.raises(ValueError, match=r"cannot decode 'video' of example 'x': the video has no"):
        transforms.parse("decode_video(9, 24)")({"key": "x"}, None)


def test_phonemes_that_look_alike_are_drawn_alike():
    for a, b in (("n", "t"), ("t", "s"), ("z", "k"), ("f", "v")):
        assert lips.OF_PHONEME[a] == lips.OF_PHONEME[b]
    used = {phoneme for word in lips.PHONEMES.values() for phoneme, _ in word}
    assert used <= set(lips.OF_PHONEME)
    shown = {viseme for visemes in lips.OF_PHONEME.values() for viseme in visemes}
    assert shown | {"rest"} == set(lips.VISEMES)


def test_shapes_follow_the_phonemes_in_the_time_of_the_word():
    frames = lips.shapes([("nine", 0.2, 0.8)], 25)
    opening = frames[:, 0]
    np.testing.assert_allclose(frames[[0, -1]], [lips.VISEMES["rest"]] * 2, atol=1e-6)
    # n ends after 136 of 436 ms, and the open half of "ai" after another 95.
    at = (0.2 + 0.6 * (136 + 95 / 2) / 436) * 25
    assert abs(opening.argmax() + 0.5 - at) < 1 and opening.max() > 0.6
    twice = lips.shapes([("nine", 0.2, 0.8), ("nine", 0.8, 1.4)], 40)
    np.testing.assert_allclose(twice[:18], frames[:18], atol=1e-6)
    np.testing.assert_allclose(twice[22:34], twice[7:19], atol=0.01)


def test_drawings_repeat_dropped_frames_and_depend_on_the_generator_alone():
    look = lips.Look.of_speaker(np.random.default_rng(0))
    mouth = lips.shapes([("two", 0.1, 0.5)], 20)
    video = lips.draw(mouth, look, np.random.default_rng(1), dropped=0.5)
    again = lips.draw(mouth, look, np.random.default_rng(1), dropped=0.5)
    np.testing.assert_array_equal(video, again)
    same = (video[1:] == video[:-1]).all((1, 2, 3))
    assert 4 < same.sum() < 16
    other = lips.draw(mouth, look.of_clip(np.random.default_rng(2)), np.random.default_rng(1))
    assert np.abs(other.astype(float) - video).mean() > 1


def test_train_and_test_share_no_speaker():
    from mmjax import config as configs

    config = configs.load(str(Path(__file__).parents[3] / "configs" / "avsr_digits.py"))
    trained = set(config.data.train.split.split("+"))
    for evaluation in config.evals.values():
        assert not trained & set(evaluation.source.split.split("+"))
