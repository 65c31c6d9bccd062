"""Whether a classifier's probabilities are frequencies: calibration errors, proper scores, and a
temperature fitted to held-out examples."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

BINS = 15


class Reliability(NamedTuple):
    """The bins of a reliability diagram that hold examples, in ascending order of confidence."""

    count: Int[np.ndarray, " k"]
    confidence: Float[np.ndarray, " k"]  # its mean in each bin
    accuracy: Float[np.ndarray, " k"]


def log_softmax(logits: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
    """Log-probabilities of logits, in float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def reliability(
    confidence: Float[np.ndarray, " n"],
    right: Bool[np.ndarray, " n"],
    bins: int = BINS,
    adaptive: bool = False,
) -> Reliability:
    """Mean confidence and accuracy by bin of confidence.

    Args:
      confidence: the probability of the predicted class, in [0, 1]; right: whether it was right.
      bins: of equal width, (i / bins, (i + 1) / bins]; adaptive: of equally many examples each
        instead, in the order of confidence.

    Raises:
      ValueError: no examples, no bins, or a confidence outside [0, 1].

    Source: Guo et al. 2017 (arXiv 1706.04599), section 2; adaptive bins: Nguyen and O'Connor 2015
    (arXiv 1508.05154), section 3.
    """
    confidence = np.asarray(confidence, np.float64)
    if not len(confidence) or bins < 1:
        raise ValueError(
            f"A reliability diagram got {len(confidence)} examples and {bins} bins: it needs at "
            "least one of each."
        )
    if not (confidence.min() >= 0 and confidence.max() <= 1):  # also refuses NaN
        raise ValueError(
            f"Confidences run from {confidence.min():g} to {confidence.max():g}: give "
            "probabilities, in [0, 1]."
        )
    if adaptive:
        place = np.empty(len(confidence), np.int64)
        for i, part in enumerate(np.array_split(np.argsort(confidence, kind="stable"), bins)):
            place[part] = i
    else:
        place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    total, hits = (np.bincount(place, x, minlength=bins) for x in (confidence, right))
    some = count > 0
    return Reliability(count[some], total[some] / count[some], hits[some] / count[some])


def expected_calibration_error(
    confidence: Float[np.ndarray, " n"],
    right: Bool[np.ndarray, " n"],
    bins: int = BINS,
    adaptive: bool = False,
) -> float:
    """The mean distance of accuracy and confidence over the bins, weighted by their examples.

    See `reliability`. Source: Guo et al. 2017 (arXiv 1706.04599), equation 3.
    """
    found = reliability(confidence, right, bins, adaptive)
    distance = np.abs(found.accuracy - found.confidence)
    return float(np.sum(found.count * distance) / found.count.sum())


def brier_score(probs: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> float:
    """The mean over examples of the squared error summed over all classes, in [0, 2].

    Source: Brier 1950, "Verification of forecasts expressed in terms of probability", equation 2.
    """
    squares = np.square(np.asarray(probs, np.float64)).sum(axis=1)
    true = np.take_along_axis(probs, labels[:, None], axis=1)[:, 0].astype(np.float64)
    return float(np.mean(squares - 2 * true + 1))


def negative_log_likelihood(
    logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]
) -> float:
    """The mean of -log p of the true class, in nats."""
    return float(-np.take_along_axis(log_softmax(logits), labels[:, None], axis=1).mean())


def fit_temperature(logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> float:
    """The T > 0 that minimizes the negative log-likelihood of softmax(logits / T).

    The likelihood is concave in 1 / T, so bisection of its slope finds the one maximum, within T of
    [1e-3, 1e3], whose ends logits reach that are always right, or no better than none.

    Args:
      logits: of examples that the model was not trained on, and that no reported number is of.

    Source: Guo et al. 2017 (arXiv 1706.04599), section 4.2.
    """
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(axis=1, keepdims=True)
    true = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    low, high = 1e-3, 1e3  # of the inverse temperature

    def slope(scale: float) -> float:
        """The derivative of the mean log-likelihood by the inverse temperature."""
        weights = np.exp(scale * logits)
        expected = (weights * logits).sum(axis=1) / weights.sum(axis=1)
        return float(np.mean(true - expected))

    for _ in range(100):  # in the logarithm
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return float(1 / np.sqrt(low * high))
