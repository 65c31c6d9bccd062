"""Images whose pixels are known, and a chain of transforms run on one."""

import numpy as np

from mmjax.data.transforms.parse import parse


def noise(h=24, w=31, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


def coordinates(h, w):
    """An image whose pixels encode their position: (y, x, 7)."""
    y, x = np.mgrid[0:h, 0:w]
    return np.stack([y, x, np.full_like(x, 7)], -1).astype(np.uint8)


def smooth(h=48, w=48):
    y, x = np.mgrid[0:h, 0:w]
    waves = [np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)]
    return np.stack([127 + 100 * wave for wave in waves], -1).astype(np.uint8)


def run(spec, image, seed=0, **context):
    return parse(spec, **context)({"image": image}, np.random.default_rng(seed))["image"]
