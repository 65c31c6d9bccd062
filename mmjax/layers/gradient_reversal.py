"""Gradient reversal: for parameters that are to make a classifier fail."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def reverse_gradient(x: Float[Array, "..."], scale: float = 1.0) -> Float[Array, "..."]:
    """x; its gradient is that of the result times -scale.

    Source: Ganin and Lempitsky 2015 (arXiv 1409.7495), section 3, equations 7 and 8.
    """
    return x


def _forward(x, scale):
    return x, None


def _backward(scale, _, dy):
    return (dy * jnp.asarray(-scale, dy.dtype),)


reverse_gradient.defvjp(_forward, _backward)
