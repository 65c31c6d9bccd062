"""Steps that choose the frames of `video` and change them alike; see `parse.py`.

`"random_frames(8) | each_frame('random_resized_crop(64) | flip') | ..."` gives `video` uint8
[8, 64, 64, 3] and `video_mask` bool [8]. Where a video has fewer frames, zeros follow them and
`video_mask` is false there. `frame_rate` of an example is that of images and arrays, which have no
times (default 25).
"""

import numpy as np

from mmjax.data.transforms import image_ops, image_steps
from mmjax.data.transforms.captions import example_name
from mmjax.data.transforms.chain import make_chain
from mmjax.data.transforms.video_clips import RATE, Clip, open_clip, shown_at
from mmjax.data.transforms.video_ops import stacked

IMAGE_STEPS = {
    f.__name__: f
    for f in (
        image_steps.resize,
        image_steps.resize_short,
        image_steps.center_crop,
        image_steps.random_crop,
        image_steps.random_resized_crop,
        image_steps.flip,
        image_steps.random_affine,
        image_steps.color_jitter,
        image_steps.random_grayscale,
        image_steps.rand_augment,
        image_steps.random_erasing,
    )
}


def uniform_frames(count):
    """`count` frames: those shown in the middle of as many equal parts of the video."""

    def choose(clip, rng):
        return _spread(clip, count, np.full(count, 0.5))

    return _choosing(choose, count)


def random_frames(count):
    """`count` frames, each shown at a random time of one of as many equal parts.

    Source: Wang et al. 2016 (arXiv 1608.00859, TSN), section 3.1.
    """

    def choose(clip, rng):
        return _spread(clip, count, rng.random(count))

    return _choosing(choose, count)


def dense_frames(count, rate):
    """`count` frames at `rate` Hz from a random time on."""
    _check_rate(rate)

    def choose(clip, rng):
        return _dense(clip, count, rate, rng.random())

    return _choosing(choose, count)


def middle_frames(count, rate):
    """`count` frames at `rate` Hz in the middle of the video."""
    _check_rate(rate)

    def choose(clip, rng):
        return _dense(clip, count, rate, 0.5)

    return _choosing(choose, count)


def each_frame(steps):
    """The steps of a chain for images, with the same random numbers for every frame of a video."""
    transform = make_chain(steps, IMAGE_STEPS, {})

    def f(example, rng):
        video = example.get("video")
        if not isinstance(video, np.ndarray):
            raise ValueError("put a step that chooses frames, such as uniform_frames, first")
        valid = example.get("video_mask", np.ones(len(video), bool))
        start, done = rng.bit_generator.state, []
        for frame in video[valid]:
            rng.bit_generator.state = start
            done.append(image_ops.to_array(transform({"image": frame}, rng)["image"]))
        changed = np.zeros((len(video), *done[0].shape), np.uint8)
        changed[valid] = stacked(done)
        return {**example, "video": changed}

    return f


def frames_as_images():
    """`video` and `video_mask` as `image` [T, H, W, 3] and `image_mask`: several images."""

    def f(example, rng):
        if not isinstance(example.get("video"), np.ndarray):
            raise ValueError("put a step that chooses frames, such as uniform_frames, first")
        rest = {k: v for k, v in example.items() if k not in ("video", "video_mask")}
        mask = example.get("video_mask", np.ones(len(example["video"]), bool))
        return {**rest, "image": example["video"], "image_mask": mask}

    return f


def _spread(clip: Clip, count: int, places: np.ndarray) -> np.ndarray:
    """Frames at `places` (0..1) of equal parts; all of them, where there are no more."""
    if len(clip.times) <= count:
        return np.arange(len(clip.times))
    times = (np.arange(count) + places) * clip.duration / count
    return shown_at(clip, times)


def _dense(clip: Clip, count: int, rate: float, place: float) -> np.ndarray:
    """Frames at a rate, the first of them at `place` (0..1) of the possible range."""
    start = max(0.0, clip.duration - count / rate) * place
    times = start + (np.arange(count) + 0.5) / rate
    return shown_at(clip, times[times < clip.duration]) if times[0] < clip.duration else [0]


def _check_rate(rate: float) -> None:
    if rate <= 0:
        raise ValueError(f"rate is {rate} frames per second; it must be above 0")


def _choosing(choose, count: int):
    """A step that decodes the frames with the indices `choose(clip, rng)`."""
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"the number of frames is {count!r}: give a whole number above 0")

    def f(example, rng):
        try:
            clip = open_clip(example.get("video"), example.get("frame_rate", RATE))
            indices, places = np.unique(choose(clip, rng), return_inverse=True)
            found = stacked(clip.frames(indices))[places]
        except ValueError as error:
            name = example_name(example)
            raise ValueError(f"cannot decode 'video' of example {name}: {error}") from None
        video = np.zeros((count, *found.shape[1:]), np.uint8)
        video[: len(found)] = found
        rest = {key: value for key, value in example.items() if key != "frame_rate"}
        return {**rest, "video": video, "video_mask": np.arange(count) < len(found)}

    return f
