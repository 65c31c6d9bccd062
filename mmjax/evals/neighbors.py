"""The nearest training image, whose caption or label is a simple baseline."""

import numpy as np

from mmjax.data.transforms.image_ops import resize
from mmjax.evals.retrieval import score_chunks


def nearest(train: np.ndarray, features: np.ndarray) -> np.ndarray:
    """`[N]`: index of each row's nearest training row, by cosine after subtracting the train mean.

    Without subtracting the mean, all images on white would be similar. Ties: the first.

    Args:
      train: `[K, ...]`; features: `[N, ...]`; all axes but the first are flattened.
    """
    x, y = (np.asarray(a, np.float32).reshape(len(a), -1) for a in (train, features))
    mean = x.mean(axis=0, keepdims=True)
    x, y = x - mean, y - mean
    x, y = (a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-12) for a in (x, y))
    found = [scores.argmax(axis=1) for _, scores in score_chunks(y, x, 1024)]
    return np.concatenate(found)


def thumbnails(images: np.ndarray, size: int = 16) -> np.ndarray:
    """Images `[N, H, W, 3] uint8` resized to `[N, size, size, 3]`."""
    return np.stack([resize(image, (size, size), "box") for image in images])
