"""Stochastic depth: a residual branch is skipped for some examples."""

import jax
import jax.numpy as jnp


def stochastic_depth(branch: jax.Array, rate: jax.Array, key: jax.Array) -> jax.Array:
    """Zero the branch with probability `rate` per example, and divide the others by 1 - rate.

    Args:
      branch: [B, ...]; rate: scalar in [0, 1); key: the random key of this branch.

    Source: Huang et al. 2016 (arXiv 1603.09382); per-example and rescaled as in timm's DropPath.
    """
    keep = 1.0 - rate
    shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
    factor = jax.random.bernoulli(key, keep, shape).astype(jnp.float32) / keep
    return branch * factor.astype(branch.dtype)
