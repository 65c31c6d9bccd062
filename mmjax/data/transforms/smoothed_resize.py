"""OWLv2's resize: a Gaussian blur, then bilinear sampling."""

import numpy as np


def smoothed_resize(image, size):
    """uint8 `[H, W, 3]` resized to `size` = (height, width), blurred before if both sides shrink.

    Source: transformers 5.23, image_processing_owlv2.py, after skimage.transform.resize; it keeps
    fractions of a pixel value, which are rounded here.
    """
    from scipy.ndimage import gaussian_filter1d  # imported late: it takes a while

    x = image.astype(np.float32)
    sigmas = [
        max(0.0, (have / want - 1) / 2) for have, want in zip(image.shape, size, strict=False)
    ]
    if all(sigmas):
        for axis, sigma in enumerate(sigmas):
            x = gaussian_filter1d(x, sigma, axis, mode="mirror", radius=int(np.ceil(3 * sigma)))
    for axis, want in enumerate(size):
        x = _sampled(x, want, axis)
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def _sampled(x, want, axis):
    """Bilinear samples along an axis, at the centers of `want` pixels, clamped to the image."""
    have = x.shape[axis]
    at = np.maximum((np.arange(want) + 0.5) * (have / want) - 0.5, 0)
    low = np.minimum(at.astype(np.int64), have - 1)
    high = np.minimum(low + 1, have - 1)
    shape = [1] * x.ndim
    shape[axis] = -1
    part = (at - low).astype(np.float32).reshape(shape)
    return x.take(low, axis) * (1 - part) + x.take(high, axis) * part
