"""Average precision of scores for yes-or-no classes."""

import numpy as np
from jaxtyping import Bool, Float


def average_precision(scores: Float[np.ndarray, " n"], truth: Bool[np.ndarray, " n"]) -> float:
    """The mean precision at the rank of each true example; equal scores share the last rank.

    NaN where no example is true. Source: `sklearn.metrics.average_precision_score`.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(ranked[1:] != ranked[:-1], True)  # of those with equal scores
    hits = np.cumsum(truth[order])[last]
    if not hits[-1]:
        return float("nan")
    precision = hits / (np.flatnonzero(last) + 1)
    return float(np.sum(np.diff(hits, prepend=0) * precision) / hits[-1])


def mean_average_precision(
    scores: Float[np.ndarray, "n c"], truth: Bool[np.ndarray, "n c"]
) -> float:
    """The mean over the classes that have an example."""
    each = [average_precision(s, t) for s, t in zip(scores.T, truth.T, strict=True)]
    return float(np.nanmean(each)) if truth.any() else float("nan")
