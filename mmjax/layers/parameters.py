"""Parameters with logical axis names."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.sharding import spec


def param(module: nn.Module, name: str, init, shape, names) -> jax.Array:
    """A float32 parameter of `module`, with one logical name per axis.

    Args:
      init: initializer `(key, shape, dtype) -> array`; shape: its shape; names: keys of
        `mmjax.sharding.RULES`, or None.

    Raises:
      ValueError: an unknown name, or not one name per axis.
    """
    spec(*names)  # Linen would silently replicate an axis with an unknown name
    if len(names) != len(shape):
        raise ValueError(f"Parameter '{name}' of shape {tuple(shape)} has names {tuple(names)}.")
    boxed = nn.with_logical_partitioning(init, tuple(names))
    return module.param(name, boxed, tuple(shape), jnp.float32)


def broadcast_last(x: jax.Array, ndim: int) -> jax.Array:
    """`x` with leading axes of size one added up to `ndim` axes."""
    return x.reshape((1,) * (ndim - x.ndim) + x.shape)
