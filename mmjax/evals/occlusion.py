"""Occlusion maps: how much an image-text cosine drops when each part of the image is covered."""

from collections.abc import Callable, Sequence

import numpy as np
from einops import rearrange


def cells(height: int, width: int, most: int) -> tuple[int, int]:
    """(rows, columns) of a grid of roughly square cells, `most` along the longer side."""
    longer = max(height, width)
    return max(1, round(most * height / longer)), max(1, round(most * width / longer))


def covered(image: np.ndarray, rows: int, columns: int) -> list[np.ndarray]:
    """Copies of an image `[H, W, 3]`, each with one cell and half a cell around it covered.

    Covered by the image's mean color; in row-major order.
    Source: Zeiler & Fergus 2014 (arXiv:1311.2901), section 4.2.
    """
    height, width = image.shape[:2]
    mean = image.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    made = []
    for row in range(rows):
        for column in range(columns):
            copy = image.copy()
            top, bottom = ((row + at) * height / rows for at in (-0.5, 1.5))
            left, right = ((column + at) * width / columns for at in (-0.5, 1.5))
            copy[max(0, round(top)) : round(bottom), max(0, round(left)) : round(right)] = mean
            made.append(copy)
    return made


def occlusion_maps(
    embed_images: Callable[[Sequence[np.ndarray]], np.ndarray],
    image: np.ndarray,
    text_embed: np.ndarray,
    most: int = 7,
) -> tuple[np.ndarray, np.ndarray]:
    """How much each text's cosine depends on each cell of the image.

    Args:
      embed_images: images -> unit vectors `[N, D]`; text_embed: `[T, D]`.
      most: cells along the longer side.

    Returns:
      The cosines `[T]`, and their decrease when each cell is covered, `[T, rows, columns]`.
    """
    rows, columns = cells(*image.shape[:2], most)
    embed = embed_images([image, *covered(image, rows, columns)])
    scores = text_embed @ embed.T
    lost = scores[:, :1] - scores[:, 1:]
    return scores[:, 0], rearrange(lost, "text (row column) -> text row column", row=rows)
