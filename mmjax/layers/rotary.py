"""Rotary position embeddings."""

import jax
import jax.numpy as jnp


def rotary_angles(positions: jax.Array, head_dim: int, base: float) -> jax.Array:
    """Rotation angles of the pairs of a head: [B, L] int -> [B, L, head_dim / 2] float32.

    Pair i is rotated by position · base^(-2i / head_dim).
    Source: RoFormer, Su et al. 2021 (arXiv 2104.09864), section 3.2.2.
    """
    if head_dim % 2:
        raise ValueError(f"Rotary positions need an even head_dim, not {head_dim}.")
    rate = base ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    return positions.astype(jnp.float32)[..., None] * rate[None, None]


def rotate(x: jax.Array, angles: jax.Array) -> jax.Array:
    """Rotate each pair (x[i], x[i + D/2]) of the last axis by its angle, in fp32.

    Pairs are formed across the two halves of a head, as in GPT-NeoX and in transformers' Llama; the
    paper's neighboring pairs are the same map with the head's dimensions permuted.

    Args:
      x: [B, L, ..., D]; angles: [B, L, D/2].
    """
    angles = angles.reshape(*angles.shape[:2], *(1,) * (x.ndim - 3), angles.shape[-1])
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
