"""What several models say together: their mean probability, and how far they disagree."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mmjax.evals.metrics.calibration import log_softmax, negative_log_likelihood
from mmjax.evals.metrics.selective import aurc


class Ensemble(NamedTuple):
    """The estimates of M members for N examples.

    Attributes:
      mean: the mean of the members' probabilities.
      entropy: of that mean, in nats: the whole uncertainty.
      mutual_information: of the class and the member, in nats: the entropy of the mean less the
        mean of the entropies, the part that is disagreement; 0 to log M.
      variance: of the predicted class's probability over the members; 0 to 1/4.
    """

    mean: Float[np.ndarray, "n c"]
    entropy: Float[np.ndarray, " n"]
    mutual_information: Float[np.ndarray, " n"]
    variance: Float[np.ndarray, " n"]


def ensemble(probabilities: Float[np.ndarray, "m n c"]) -> Ensemble:
    """The estimates of the probabilities of M members.

    Source: Lakshminarayanan et al. 2017 (arXiv 1612.01474), section 2.4; the mutual information:
    Depeweg et al. 2018 (arXiv 1710.07283).
    """
    every = np.asarray(probabilities, np.float64)
    mean = every.mean(axis=0)
    entropy = _entropy(mean)
    # Rounding alone would make it negative where all members agree.
    shared = np.maximum(entropy - _entropy(every).mean(axis=0), 0.0)
    predicted = mean.argmax(axis=1)[None, :, None]
    variance = np.take_along_axis(every, predicted, axis=2)[..., 0].var(axis=0)
    return Ensemble(mean, entropy, shared, variance)


def ensemble_logits(logits: Sequence[Float[np.ndarray, "n c"]]) -> Float[np.ndarray, "n c"]:
    """Logits whose softmax is the members' mean probability; of one member, its own."""
    if len(logits) == 1:
        return logits[0]
    return np.logaddexp.reduce([log_softmax(each) for each in logits]) - np.log(len(logits))


def ensemble_metrics(
    logits: Sequence[Float[np.ndarray, "n c"]], labels: Int[np.ndarray, " n"]
) -> dict[str, float]:
    """What the members disagree about.

    `mutual_information` and `variance`, means over the examples; `aurc_mutual_information` and
    `aurc_variance`, with these as the doubt in place of the probability; `member_top1` and
    `member_nll`, means over the members, to see what the ensemble adds.
    """
    found = ensemble(np.exp([log_softmax(each) for each in logits]))
    right = found.mean.argmax(axis=1) == labels
    return {
        "mutual_information": float(found.mutual_information.mean()),
        "aurc_mutual_information": aurc(-found.mutual_information, right),
        "variance": float(found.variance.mean()),
        "aurc_variance": aurc(-found.variance, right),
        "member_top1": float(np.mean([(x.argmax(axis=1) == labels).mean() for x in logits])),
        "member_nll": float(np.mean([negative_log_likelihood(x, labels) for x in logits])),
    }


def _entropy(p: np.ndarray) -> np.ndarray:
    """Over the last axis, in nats."""
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)
