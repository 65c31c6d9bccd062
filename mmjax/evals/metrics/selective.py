"""Selective prediction: how often a classifier errs on the examples that it is most sure of."""

import numpy as np
from jaxtyping import Bool, Float


def risk_coverage(
    confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Coverage k / N, and the error rate of the k most confident examples, for k = 1 ... N.

    Equally confident examples are in random order, and their risk is the expected one.

    Raises:
      ValueError: no examples.

    Source: El-Yaniv and Wiener 2010, "On the foundations of noise-free selective classification".
    """
    n = len(confidence)
    if not n:
        raise ValueError("A risk-coverage curve needs at least one example.")
    _, group, count = np.unique(-np.asarray(confidence), return_inverse=True, return_counts=True)
    errors = np.bincount(group, ~np.asarray(right, bool))  # by group, the most confident first
    kept = np.arange(1, n + 1)
    return kept / n, np.cumsum(np.repeat(errors / count, count)) / kept


def aurc(confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> float:
    """The area under the risk-coverage curve: the mean risk over all N coverages; 0 is best.

    Source: Geifman and El-Yaniv 2017 (arXiv 1705.08500).
    """
    return float(risk_coverage(confidence, right)[1].mean())


def excess_aurc(confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> float:
    """`aurc` less that of the best order of the same predictions, all errors last.

    So a more accurate classifier does not look like a better judge of itself. Source: Geifman et
    al. 2019 (arXiv 1805.08206), section 3, with the sum in place of its integral's approximation.
    """
    best = np.asarray(right, np.float64)
    return aurc(confidence, right) - aurc(best, right)


def threshold_of_coverage(confidence: Float[np.ndarray, " n"], coverage: float) -> float:
    """The highest confidence t so that at least that fraction of the examples has t or more.

    Raises:
      ValueError: a coverage outside (0, 1], or no examples.
    """
    if not 0 < coverage <= 1 or not len(confidence):
        raise ValueError(
            f"A coverage of {coverage} of {len(confidence)} examples was asked for: use one above "
            "0 and up to 1, of at least one example."
        )
    kept = int(np.ceil(coverage * len(confidence) - 1e-9))
    return float(np.sort(confidence)[len(confidence) - kept])
