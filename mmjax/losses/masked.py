"""Losses of masked prediction: of what was hidden from the model, and of nothing else."""

import jax
import jax.numpy as jnp
import optax


def masked_values(prediction: jax.Array, target: jax.Array, hidden: jax.Array) -> jax.Array:
    """Mean squared error of hidden patches, each patch's target normalised by itself.

    Args:
      prediction, target: [B, L, P]; hidden: [B, L] bool.

    Source: MAE, He et al. 2022 (arXiv 2111.06377), section 3, "reconstruction target".
    """
    target = target.astype(jnp.float32)
    centred = target - target.mean(-1, keepdims=True)
    normed = centred / jnp.sqrt(target.var(-1, keepdims=True) + 1e-6)
    return _mean_of(jnp.square(prediction.astype(jnp.float32) - normed).mean(-1), hidden)


def masked_ids(logits: jax.Array, target: jax.Array, hidden: jax.Array) -> jax.Array:
    """Mean cross-entropy of hidden tokens: logits [B, L, V], target [B, L] int, hidden [B, L] bool.

    Source: BERT, Devlin et al. 2019 (arXiv 1810.04805), section 3.1.
    """
    logits = logits.astype(jnp.float32)
    return _mean_of(optax.softmax_cross_entropy_with_integer_labels(logits, target), hidden)


def _mean_of(loss: jax.Array, hidden: jax.Array) -> jax.Array:
    """Mean of loss [B, L] over the hidden positions; 0 where nothing is hidden."""
    return jnp.sum(loss, where=hidden) / jnp.maximum(hidden.sum(), 1).astype(jnp.float32)
