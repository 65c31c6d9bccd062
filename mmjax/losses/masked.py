"""Masked-prediction losses, over masked tokens only."""

import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike, Bool, Float, Int

from mmjax.system import Weighted


def masked_values(
    prediction: Float[ArrayLike, "b l p"],
    target: Float[ArrayLike, "b l p"],
    masked: Bool[ArrayLike, "b l"],
) -> Weighted:
    """Mean squared error of masked patches; the target of each patch is normalized.

    Args:
      prediction, target: [B, L, P]; masked: [B, L] bool.

    Source: MAE, He et al. 2022 (arXiv 2111.06377), section 3, "reconstruction target".
    """
    target = target.astype(jnp.float32)
    centered = target - target.mean(-1, keepdims=True)
    normed = centered / jnp.sqrt(target.var(-1, keepdims=True) + 1e-6)
    return _per_example(jnp.square(prediction.astype(jnp.float32) - normed).mean(-1), masked)


def masked_ids(
    logits: Float[ArrayLike, "b l v"], target: Int[ArrayLike, "b l"], masked: Bool[ArrayLike, "b l"]
) -> Weighted:
    """Mean cross-entropy of masked tokens: logits [B, L, V], target [B, L] int, masked [B, L] bool.

    Source: BERT, Devlin et al. 2019 (arXiv 1810.04805), section 3.1.
    """
    logits = logits.astype(jnp.float32)
    return _per_example(optax.softmax_cross_entropy_with_integer_labels(logits, target), masked)


def _per_example(loss: Float[ArrayLike, "b l"], masked: Bool[ArrayLike, "b l"]) -> Weighted:
    """The mean of loss [B, L] over each row's masked positions, weighted by their number."""
    count = masked.sum(1, dtype=jnp.float32)
    return Weighted(jnp.sum(loss, 1, where=masked) / jnp.maximum(count, 1.0), count)
