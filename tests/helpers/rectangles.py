"""Images of rectangles, each of one of eight colors, whose names are those of the regions."""

import numpy as np

from mmjax.data import rle
from mmjax.data.draws import row_rng
from mmjax.data.regions import of_masks
from mmjax.data.source import Source

COLORS = ["red", "green", "blue", "yellow", "cyan", "magenta", "white", "orange"]
VALUES = np.asarray(
    [
        *((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)),
        *((0, 255, 255), (255, 0, 255), (255, 255, 255), (255, 128, 0)),
    ]
)
HEIGHT, WIDTH = 40, 64


class Rectangles(Source):
    """`n` images with a rectangle in each of three thirds, from left to right."""

    name = "rectangles"

    def __init__(self, n, twice=False, seed=0):
        self.n, self.twice, self.seed, self.class_names = n, twice, seed, list(COLORS)

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        rng = row_rng(self.seed, i)
        labels = rng.permutation(len(COLORS))[:3]
        labels[1] = labels[0] if self.twice else labels[1]
        image, masks = np.zeros((HEIGHT, WIDTH, 3), np.uint8), []
        for third, label in enumerate(labels):
            height, width = rng.integers(6, [30, 18])
            top = rng.integers(HEIGHT - height)
            left = 21 * third + rng.integers(20 - width)
            mask = np.zeros((HEIGHT, WIDTH), bool)
            mask[top : top + height, left : left + width] = True
            image[mask] = VALUES[label]
            masks.append(rle.encode(mask))
        regions = of_masks(masks, labels, HEIGHT, WIDTH)
        return {"key": f"{i}", "image": image, "regions": regions, "board": f"b{i % 3}"}


def box_in(image, color):
    """x0, y0, x1, y1 in 0..1 of the pixels of a color."""
    mask = (image == VALUES[COLORS.index(color)]).all(-1)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    return np.asarray(
        [
            *(columns[0] / width, rows[0] / height),
            *((columns[-1] + 1) / width, (rows[-1] + 1) / height),
        ]
    )


def color_at(image, point):
    """The color at x, y in 0..1; None on the background."""
    height, width = image.shape[:2]
    x, y = min(int(point[0] * width), width - 1), min(int(point[1] * height), height - 1)
    found = np.flatnonzero((image[y, x] == VALUES).all(-1))
    return COLORS[found[0]] if len(found) else None
