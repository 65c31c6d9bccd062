"""Which frames the steps choose, and that all frames of a video are changed alike."""

import clips
import numpy as np
import pytest

from mmjax.data.transforms import parse as transforms
from mmjax.data.transforms.evaluation import evaluation_form
from mmjax.data.transforms.video_steps import IMAGE_STEPS


def numbered(count):
    """A video whose frame i is of the color i."""
    return np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 3), np.uint8)


def chosen(spec, count, rate=10, seed=0):
    """Numbers of the chosen frames."""
    example = {"video": numbered(count), "frame_rate": rate}
    found = transforms.parse(spec)(example, np.random.default_rng(seed))
    assert "frame_rate" not in found and found["video"].dtype == np.uint8
    assert not found["video"][~found["video_mask"]].any()
    return found["video"][found["video_mask"], 0, 0, 0].tolist()


def test_the_middle_of_equal_parts():
    assert chosen("uniform_frames(4)", 40) == [5, 15, 25, 35]
    assert chosen("uniform_frames(3)", 10) == [1, 5, 8]
    assert chosen("uniform_frames(1)", 9) == [4]


def test_a_random_frame_of_each_part():
    draws = np.asarray([chosen("random_frames(4)", 40, seed=i) for i in range(60)])
    assert ((draws >= [0, 10, 20, 30]) & (draws < [10, 20, 30, 40])).all()
    assert all(len(set(column)) > 5 for column in draws.T.tolist())
    assert chosen("random_frames(4)", 40, seed=3) == draws[3].tolist()


def test_dense_clips_are_at_their_rate():
    draws = np.asarray([chosen("dense_frames(5, 5)", 40, seed=i) for i in range(60)])
    assert (np.diff(draws) == 2).all()  # 5 Hz of 10
    assert draws.min() <= 3 and draws.max() >= 37
    assert chosen("middle_frames(5, 5)", 40) == [16, 18, 20, 22, 24]
    assert chosen("dense_frames(4, 20)", 2) == [0, 0, 1, 1]  # a higher rate repeats frames


def test_a_video_shorter_than_the_clip_is_followed_by_zeros():
    for spec in ("uniform_frames(5)", "random_frames(5)", "dense_frames(5, 10)"):
        assert chosen(spec, 3) == [0, 1, 2]
    assert chosen("dense_frames(5, 0.5)", 1, rate=10) == [0]


def test_times_count_not_numbers():
    stamps = [0, 1, 2, 3, 4, 100]
    data = clips.encoded(clips.frames(6), rate=50, stamps=stamps)
    found = transforms.parse("uniform_frames(2)")({"video": data}, None)
    whole = clips.decoded(data)
    np.testing.assert_array_equal(found["video"], [whole[4], whole[4]])  # 0.5 s and 1.5 s of 2


@pytest.mark.parametrize("name", sorted(IMAGE_STEPS))
def test_every_frame_gets_the_same_random_numbers(name):
    sizes = {"random_affine": "20, 0.1", "color_jitter": "0.4, 0.4, 0.4, 0.1"}
    sizes |= {"random_grayscale": "0.5", "flip": "", "rand_augment": "2", "random_erasing": "0.9"}
    step = f"{name}({sizes.get(name, '20')})"
    video = clips.frames(3)
    run = transforms.parse(f'each_frame("{step} | flip")')
    found = run({"video": video, "video_mask": np.ones(3, bool)}, np.random.default_rng(4))
    alone = transforms.parse(f"{step} | flip")
    for i in range(3):
        want = alone({"image": video[i]}, np.random.default_rng(4))["image"]
        np.testing.assert_array_equal(found["video"][i], want)


def test_frames_that_are_not_there_stay_zero():
    run = transforms.parse("uniform_frames(4) | each_frame('color_jitter(0.9) | resize(5)')")
    found = run({"video": clips.frames(2), "key": "a"}, np.random.default_rng(0))
    assert found["video"].shape == (4, 5, 5, 3) and found["video"][:2].any()
    assert not found["video"][2:].any() and found["video_mask"].tolist() == [True] * 2 + [False] * 2


def test_the_evaluation_form():
    spec = "random_frames(8) | each_frame('random_resized_crop(32) | flip') | first_caption"
    want = "uniform_frames(8) | each_frame('resize(32)') | first_caption"
    assert evaluation_form(spec) == want
    assert evaluation_form("dense_frames(8, rate=4)") == "middle_frames(8, rate=4)"
    assert evaluation_form("random_frames(count=8)") == "uniform_frames(8)"


def test_frames_as_several_images():
    found = transforms.parse("uniform_frames(4) | frames_as_images")({"video": numbered(3)}, None)
    assert set(found) == {"image", "image_mask"} and found["image"].shape == (4, 4, 6, 3)
    assert found["image_mask"].tolist() == [True, True, True, False]
    with pytest.raises(ValueError, match="put a step that chooses frames"):
        transforms.parse("frames_as_images")({"video": b"..."}, None)


def test_wrong_steps_are_said():
    with pytest.raises(ValueError, match="put a step that chooses frames"):
        transforms.parse("each_frame('flip')")({"video": b"..."}, None)
    with pytest.raises(ValueError, match="number of frames is 0"):
        transforms.parse("uniform_frames(0)")
    with pytest.raises(ValueError, match="rate is 0 frames per second"):
        transforms.parse("dense_frames(3, 0)")
    with pytest.raises(ValueError, match="no transform 'tokenize'"):
        transforms.parse("each_frame('tokenize(3)')")
    with pytest.raises(ValueError, match="cannot decode 'video' of example 'x': .* no frames"):
        transforms.parse("uniform_frames(2)")({"key": "x"}, None)
