"""A source of numbers, and a transform that adds random ones."""

import itertools

import numpy as np

from mmjax.data.source import Source


class Numbers(Source):
    """Example `i` holds the number `i` and things that do not belong on a device."""

    name = "numbers"

    def __init__(self, n, bad=None):
        self.n, self.bad = n, bad

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        assert 0 <= i < self.n
        if i == self.bad:
            raise OSError("the disk is gone")
        return {"key": f"key-{i}", "image": np.full((2, 2, 3), i, np.uint8), "captions": ["a"]}


def noisy(example, rng):
    return {**example, "noise": rng.integers(0, 2**31), "label": 3, "weight": 0.5}


def take(n, batches):
    return list(itertools.islice(batches, n))
