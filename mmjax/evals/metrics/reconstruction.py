"""How near a reconstruction is to its image: PSNR, SSIM and bits per dimension."""

import math

import numpy as np
from jaxtyping import Float, UInt8

SIGMA, RADIUS = 1.5, 5  # of SSIM's Gaussian weights, in pixels; 11 x 11 of them


def psnr(
    images: UInt8[np.ndarray, "n h w c"], reference: UInt8[np.ndarray, "n h w c"]
) -> Float[np.ndarray, " n"]:
    """Peak signal-to-noise ratio of each image in decibels; infinite for equal ones."""
    error = np.square(images.astype(np.float64) - reference).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255.0**2 / error)


def ssim(
    images: UInt8[np.ndarray, "n h w c"], reference: UInt8[np.ndarray, "n h w c"]
) -> Float[np.ndarray, " n"]:
    """Structural similarity of each image, at most 1: the mean over channels and over the pixels
    whose window is inside the image.

    Raises:
      ValueError: images of fewer than 11 pixels a side.

    Source: Wang et al. 2004, section III.B; as scikit-image's structural_similarity with
    gaussian_weights=True, sigma=1.5, use_sample_covariance=False and data_range=255.
    """
    from scipy.ndimage import gaussian_filter  # imported late: most evaluations do not need it

    if min(images.shape[1:3]) <= 2 * RADIUS:
        raise ValueError(
            f"SSIM needs images of at least {2 * RADIUS + 1} pixels a side and got "
            f"{images.shape[1]} x {images.shape[2]}: leave it out for such small images."
        )
    x, y = images.astype(np.float64), reference.astype(np.float64)

    def mean(values: np.ndarray) -> np.ndarray:
        blurred = gaussian_filter(values, SIGMA, radius=RADIUS, axes=(1, 2))
        return blurred[:, RADIUS:-RADIUS, RADIUS:-RADIUS]

    x_mean, y_mean = mean(x), mean(y)
    x_variance, y_variance = mean(x * x) - x_mean**2, mean(y * y) - y_mean**2
    covariance = mean(x * y) - x_mean * y_mean
    luminance, structure = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    alike = (2 * x_mean * y_mean + luminance) * (2 * covariance + structure)
    most = (x_mean**2 + y_mean**2 + luminance) * (x_variance + y_variance + structure)
    return (alike / most).mean(axis=(1, 2, 3))


def bits_per_dimension(nats: float, dimensions: int) -> float:
    """A negative log likelihood of an image in nats, as bits for each of its H·W·C numbers."""
    return nats / (dimensions * math.log(2))
