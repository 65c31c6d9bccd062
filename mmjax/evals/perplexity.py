"""Perplexity of a language model."""

import numpy as np


def perplexity(losses: np.ndarray, mask: np.ndarray) -> float:
    """exp of the mean loss over all tokens in `mask` (not a mean over texts).

    Args:
      losses: `[B, L]` in nats; mask: `[B, L]` bool.

    Raises:
      ValueError: an empty mask, or a loss in it that is not finite.
    """
    counted = np.asarray(losses, np.float64)[np.asarray(mask, bool)]
    if not counted.size:
        raise ValueError("Perplexity has no token to count: the mask is empty.")
    if not np.isfinite(counted).all():
        raise ValueError(
            f"{np.sum(~np.isfinite(counted))} of {counted.size} token losses are not finite: "
            "perplexity is not defined; look at the model's logits."
        )
    return float(np.exp(counted.mean()))
