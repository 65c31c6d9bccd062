"""k nearest neighbors on frozen features."""

import numpy as np

from mmjax.evals.retrieval import score_chunks


def knn_scores(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    features: np.ndarray,
    classes: int,
    *,
    k: int = 20,
    temperature: float = 0.07,
    chunk_size: int = 1024,
) -> np.ndarray:
    """Votes `[N, C]` of the k nearest by cosine, each weighted exp(cosine / temperature).

    Source: Wu et al. 2018 (arXiv:1805.01978), section 3.4; DINO's protocol (k=20, T=0.07).

    Args:
      train_features: `[K, D]`; train_labels: `[K]` int; features: `[N, D]`; of any norm.
    """
    unit = [
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        for x in (np.asarray(features, np.float32), np.asarray(train_features, np.float32))
    ]
    k = min(k, len(train_labels))
    votes = np.zeros((len(features), classes), np.float64)
    for start, scores in score_chunks(*unit, chunk_size):
        nearest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        cosine = np.take_along_axis(scores, nearest, axis=1)
        # Relative to cosine 1, so that a low temperature cannot overflow.
        weight = np.exp((cosine - 1.0) / temperature)
        rows = np.arange(start, start + len(scores))[:, None]
        np.add.at(votes, (rows, np.asarray(train_labels)[nearest]), weight)
    return votes
