"""Where generated features are among real ones: precision, recall, copies of training images."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Inexact, Int

CHUNK = 1024


def precision_recall(
    features: Inexact[np.ndarray, "n d"], reference: Inexact[np.ndarray, "m d"], k: int = 3
) -> tuple[float, float]:
    """Fractions of the generated features on the manifold of the real ones, and of the real on that
    of the generated.

    A manifold is the union of the balls around its points that reach to their k-th neighbor.

    Raises:
      ValueError: a set has not more than k rows.

    Source: Kynkäänniemi et al. 2019 (arXiv:1904.06991), section 2.
    """
    for rows in (features, reference):
        if len(rows) <= k:
            raise ValueError(
                f"Precision and recall with {k} neighbors need more than {k} images and got "
                f"{len(rows)}: give more, or fewer neighbors."
            )
    precision = _covered(features, reference, k).mean()
    return float(precision), float(_covered(reference, features, k).mean())


def _covered(
    points: Inexact[np.ndarray, "n d"], manifold: Inexact[np.ndarray, "m d"], k: int
) -> Bool[np.ndarray, " n"]:
    """Whether each point is on the manifold."""
    # Of the distances to all points of its own set, itself included, the first is 0.
    radius = [np.partition(part, k, axis=1)[:, k] for part in _distances(manifold, manifold)]
    reach = np.concatenate(radius)[None]
    return np.concatenate([(part <= reach).any(axis=1) for part in _distances(points, manifold)])


def nearest_rows(
    points: Inexact[np.ndarray, "n d"], others: Inexact[np.ndarray, "m d"]
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Each point's nearest row of `others`, and the Euclidean distance to it. Ties: the first."""
    found, far = [], []
    for part in _distances(points, others):
        found.append(part.argmin(axis=1))
        far.append(part.min(axis=1))
    return np.concatenate(found), np.concatenate(far)


def copying(
    generated: Float[np.ndarray, " n"], held_out: Float[np.ndarray, " m"]
) -> tuple[float, float]:
    """Whether samples are nearer to the training set than held-out images are.

    Args:
      generated, held_out: the distance of each sample, and of each held-out image of the same
        distribution, to its nearest training image.

    Returns:
      The probability that a sample is nearer than a held-out image (0.5: as they should be; 1: all
      samples are copies), and the z-score of the Mann-Whitney test, below about -3 for copies.

    Source: Meehan et al. 2020 (arXiv:2004.05675), section 2.2, over the whole space.
    """
    n, m = len(generated), len(held_out)
    ordered = np.sort(held_out)
    both = [np.searchsorted(ordered, generated, side) for side in ("left", "right")]
    farther = sum(both).sum() / 2  # pairs whose sample is farther; ties count half
    z = (farther - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12)
    return float(1 - farther / (n * m)), float(z)


def _distances(points: np.ndarray, others: np.ndarray) -> Iterator[np.ndarray]:
    """Euclidean distances [c, m] of the points, in chunks, float64."""
    from scipy.spatial.distance import cdist  # imported late: most evaluations do not need it

    # Not by |x|² + |y|² - 2 x·y, which makes copies differ.
    for start in range(0, len(points), CHUNK):
        yield cdist(points[start : start + CHUNK], others)
