"""The Fréchet distance between two sets of features, of which FID is the one of Inception's."""

import numpy as np
from jaxtyping import Inexact


def frechet_distance(
    features: Inexact[np.ndarray, "n d"], reference: Inexact[np.ndarray, "m d"]
) -> float:
    """Squared Fréchet distance of the Gaussians with the means and covariances of two sets.

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½), in float64. With factors C = RᵀR the trace of the root
    is the sum of the singular values of R1 R2ᵀ. So nothing is divided by or takes the root of a
    rounding error, and singular covariances (fewer rows than d) need no offset on their diagonal.

    Raises:
      ValueError: fewer than two rows, or numbers that are not finite.

    Source: Heusel et al. 2017 (arXiv:1706.08500), section 3; covariances over n - 1, as its code.
    """
    (mean1, factor1), (mean2, factor2) = _gaussian(features), _gaussian(reference)
    root = np.linalg.svd(factor1 @ factor2.T, compute_uv=False).sum()
    trace = np.square(factor1).sum() + np.square(factor2).sum()
    # Rounding makes equal sets differ by some 1e-13 in either direction.
    return max(0.0, float(np.square(mean1 - mean2).sum() + trace - 2 * root))


def _gaussian(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean [d], and a factor R [min(n, d), d] of the covariance RᵀR."""
    if len(features) < 2 or not np.isfinite(features).all():
        raise ValueError(
            f"A Fréchet distance needs at least two rows of finite features and got an array "
            f"{list(features.shape)}: give more images, or look for what is not finite."
        )
    x = features.astype(np.float64)
    mean = x.mean(axis=0)
    return mean, np.linalg.qr(x - mean[None], mode="r") / np.sqrt(len(x) - 1)
