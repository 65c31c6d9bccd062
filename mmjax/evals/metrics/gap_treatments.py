"""The gap between two modalities' embeddings: how separable they are, and what closes it."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Embeds = tuple[Float[np.ndarray, "_ d"], Float[np.ndarray, "_ d"]]


def linear_separability(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], ridge: float = 1e-3
) -> float:
    """Accuracy with which a hyperplane tells embeddings [N, D] of one modality from [M, D] of the
    other: 1: they are apart, 0.5: they are mixed.

    The plane is fitted by least squares on half of each set, with a penalty of `ridge` times the
    mean variance, and tested on the other half, and the reverse; each set counts the same.

    Raises:
      ValueError: fewer than four embeddings in a set.
    """
    if min(len(x), len(y)) < 4:
        raise ValueError(
            f"The separability of {len(x)} and {len(y)} embeddings has no halves to fit and to "
            "test: give four or more of each."
        )
    right = []
    for half in (0, 1):
        fit = [np.asarray(z[half::2], np.float64) for z in (x, y)]
        test = [np.asarray(z[1 - half :: 2], np.float64) for z in (x, y)]
        middle = (fit[0].mean(axis=0) + fit[1].mean(axis=0)) / 2
        scatter = np.zeros((x.shape[1],) * 2)
        for z in fit:
            scatter += (z - middle).T @ (z - middle) / len(z)
        penalty = ridge * np.trace(scatter) / len(scatter) + 1e-12
        normal = np.linalg.solve(
            scatter + penalty * np.eye(len(scatter)), fit[0].mean(axis=0) - fit[1].mean(axis=0)
        )
        for sign, z in zip((1, -1), test):
            right.append(np.mean(sign * ((z - middle) @ normal) > 0))
    return float(np.mean(right))


def unit(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows of unit length."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def shift(fitted: Embeds, embeds: Embeds) -> Embeds:
    """Each modality moved by half of the gap between the centroids, towards the other.

    Source: Liang et al. 2022 (arXiv 2203.02053), section 4.2, at the distance that closes the gap.
    """
    gap = fitted[0].mean(axis=0) - fitted[1].mean(axis=0)
    return embeds[0] - gap / 2, embeds[1] + gap / 2


def center(fitted: Embeds, embeds: Embeds) -> Embeds:
    """Each modality without its mean."""
    return tuple(x - mine.mean(axis=0) for mine, x in zip(fitted, embeds))


def standardize(fitted: Embeds, embeds: Embeds) -> Embeds:
    """Each dimension of each modality with mean 0 and variance 1."""
    return tuple(
        (x - mine.mean(axis=0)) / np.maximum(mine.std(axis=0), 1e-6)
        for mine, x in zip(fitted, embeds)
    )


def project(fitted: Embeds, embeds: Embeds) -> Embeds:
    """Both modalities without the direction of the gap between the centroids."""
    gap = fitted[0].mean(axis=0) - fitted[1].mean(axis=0)
    direction = gap / max(float(np.linalg.norm(gap)), 1e-12)
    return tuple(x - np.outer(x @ direction, direction) for x in embeds)


def none(fitted: Embeds, embeds: Embeds) -> Embeds:
    """The embeddings as they are."""
    return embeds


TREATMENTS: dict[str, Callable[[Embeds, Embeds], Embeds]] = {
    f.__name__: f for f in (none, shift, center, standardize, project)
}
