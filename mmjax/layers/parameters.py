"""Parameters whose axes carry logical names."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.sharding import spec


def param(module: nn.Module, name: str, init, shape, names) -> jax.Array:
    """A float32 parameter of `module`, one logical axis name an axis.

    Args:
      init: initializer `(key, shape, dtype) -> array`; shape: its shape; names: words from
        `mmjax.sharding.RULES`, or None.

    Raises:
      ValueError: an unknown name, or a count of names other than the count of axes.
    """
    spec(*names)  # Linen would silently replicate an axis with an unknown name
    if len(names) != len(shape):
        raise ValueError(f"Parameter '{name}' of shape {tuple(shape)} has names {tuple(names)}.")
    boxed = nn.with_logical_partitioning(init, tuple(names))
    return module.param(name, boxed, tuple(shape), jnp.float32)


def broadcast_last(x: jax.Array, ndim: int) -> jax.Array:
    """`x` with axes of size one in front, so that it has `ndim` axes."""
    return x.reshape((1,) * (ndim - x.ndim) + x.shape)
