"""The focal loss of logits."""

import jax
from jaxtyping import Array, ArrayLike, Float


def focal(
    logits: Float[ArrayLike, "*s"], alpha: float, gamma: float
) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
    """The focal loss of each logit as a positive, and as a negative.

    Source: Lin et al. 2017 (arXiv 1708.02002), eq. 5.
    """
    p = jax.nn.sigmoid(logits)
    positive = -alpha * (1 - p) ** gamma * jax.nn.log_sigmoid(logits)
    return positive, -(1 - alpha) * p**gamma * jax.nn.log_sigmoid(-logits)
