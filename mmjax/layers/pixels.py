"""Normalization of image pixels."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def normalize(image: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """[B, H, W, 3] in 0..255 -> (value / 255 - mean) / std, per channel, in fp32."""
    mean, std = (jnp.asarray(v, jnp.float32).reshape(1, 1, 1, 3) for v in (mean, std))
    return (image.astype(jnp.float32) - 255 * mean) / (255 * std)
