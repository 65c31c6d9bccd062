"""What a classifier knows about its own errors: all metrics of its logits, and when to abstain."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.evals.metrics.calibration import (
    BINS,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    log_softmax,
    negative_log_likelihood,
)
from mmjax.evals.metrics.selective import aurc, excess_aurc, threshold_of_coverage


class Fitted(NamedTuple):
    """What is fitted on validation examples: softmax(logits / temperature) are the probabilities,
    and a prediction is trusted from `threshold` on, which keeps `coverage` of those examples."""

    temperature: float
    threshold: float
    coverage: float


def confidences(
    logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """The probability of each predicted class, and whether the prediction is right."""
    return np.exp(log_softmax(logits).max(axis=1)), logits.argmax(axis=1) == labels


def uncertainty_metrics(
    logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], bins: int = BINS
) -> dict[str, float]:
    """`nll`, `brier`, `ece` and `ece_adaptive`, `aurc` and `excess_aurc`; for all, 0 is best."""
    confidence, right = confidences(logits, labels)
    return {
        "nll": negative_log_likelihood(logits, labels),
        "brier": brier_score(np.exp(log_softmax(logits)), labels),
        "ece": expected_calibration_error(confidence, right, bins),
        "ece_adaptive": expected_calibration_error(confidence, right, bins, adaptive=True),
        "aurc": aurc(confidence, right),
        "excess_aurc": excess_aurc(confidence, right),
    }


def fit(logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], coverage: float) -> Fitted:
    """The temperature, and the threshold of a coverage, of validation examples.

    Raises:
      ValueError: a coverage outside (0, 1].
    """
    temperature = fit_temperature(logits, labels)
    confidence, _ = confidences(np.asarray(logits, np.float64) / temperature, labels)
    return Fitted(temperature, threshold_of_coverage(confidence, coverage), coverage)
