"""Steps that make tokens of a video: its clips as ids of clusters; and videos joined in time."""

import functools
from pathlib import Path

import numpy as np
from einops import rearrange

from mmjax.data import clusters
from mmjax.data.transforms.captions import example_name
from mmjax.data.transforms.video_clips import RATE, Joined


def video_tokens(folder, clip=1, frames=None):
    """`video_tokens` int32 and `video_tokens_mask` bool [T] in place of `video`.

    A token is the cluster of a clip of `clip` frames, whose features are its pixels in 0..1: put
    `each_frame('resize(12)')` before it. Where the example has `video_features`, float [N, D] of N
    clips (as of a network), these are clustered instead: the first `frames` of them, or followed by
    zeros.

    Args:
      folder: from `python -m mmjax.cluster_video`; see `clusters`.
    """

    def f(example, rng):
        features, mask = clip_features(example, clip, frames)
        try:
            ids = _tree(str(folder)).ids(features)
        except ValueError as error:
            raise ValueError(f"video_tokens of example {example_name(example)}: {error}") from None
        left_out = ("video", "video_mask", "video_features")
        rest = {key: value for key, value in example.items() if key not in left_out}
        ids = np.where(mask, ids, 0).astype(np.int32)
        return {**rest, "video_tokens": ids, "video_tokens_mask": mask}

    return f


def clip_features(example, clip=1, frames=None):
    """The features [T, D] float32 of an example's clips and which are valid [T]; see
    `video_tokens`."""
    given = example.get("video_features")
    if given is not None:
        count = frames or len(given)
        features = np.zeros((count, given.shape[1]), np.float32)
        features[: len(given)] = given[:count]
        return features, np.arange(count) < len(given)
    video = example.get("video")
    if not isinstance(video, np.ndarray):
        raise ValueError("put a step that chooses frames, such as uniform_frames, first")
    if len(video) % clip:
        raise ValueError(f"{len(video)} frames are no clips of {clip}: choose a multiple")
    pixels = rearrange(video, "(t c) h w rgb -> t (c h w rgb)", c=clip)
    mask = rearrange(example["video_mask"], "(t c) -> t c", c=clip).all(1)
    mask[0] |= example["video_mask"][0]  # a video of fewer frames than a clip has
    return pixels.astype(np.float32) / 255, mask


@functools.lru_cache(maxsize=8)
def _tree(folder):
    return clusters.load(Path(folder))


def join_next(p=0.5):
    """With probability `p` an example with `next`, the one after it in its recording, becomes both:
    their first captions as one text, their videos one after the other.

    The text of a sentence and what is seen at that time fit together loosely: joined to longer ones
    they do better. Source: Sun et al. 2019 (arXiv 1904.01766), section 3.2.
    """

    def f(example, rng):
        rest = {key: value for key, value in example.items() if key != "next"}
        after = example.get("next")
        if after is None or rng.random() >= p:
            return rest
        for name in ("captions", "video"):
            if name not in example or name not in after:
                raise ValueError(f"example {example_name(example)} or the one after has no {name}")
        both = f"{example['captions'][0].rstrip('. ')}. {after['captions'][0]}"
        rate = example.get("frame_rate", RATE)
        videos = Joined([(x["video"], x.get("frame_rate", rate)) for x in (example, after)])
        return {**rest, "captions": [both], "video": videos}

    return f
