"""Perplexity: how many equally likely tokens a language model's guess is worth."""

import numpy as np


def perplexity(losses: np.ndarray, mask: np.ndarray) -> float:
    """exp of the mean loss over the tokens in `mask`; every token counts alike, whatever its text.

    Args:
      losses: `[B, L]` in nats; mask: `[B, L]` bool.

    Raises:
      ValueError: no token counts, or a loss that counts is not finite.
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
