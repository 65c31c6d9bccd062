"""Work that the backward pass does again, so that less has to be kept between the two passes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def recompute(f: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`f`, of which only the arguments are kept for the backward pass: it computes f again there.

    As `jax.checkpoint`, for layers that are not in a loop on XLA's CPU backend, where that saves
    nothing: nothing stops the compiler from computing again at once and keeping the result. Here
    the arguments depend on the cotangent, so the work cannot begin before the backward pass does.

    Args:
      f: arrays (or trees of them, of any dtype; None) -> one float array. It closes over no array.
    """

    @jax.custom_vjp
    def again(*args):
        return f(*args)

    def forward(*args):
        return f(*args), args

    def backward(args, dy):
        return jax.vjp(f, *_after(args, dy))[1](dy)

    again.defvjp(forward, backward)
    return functools.wraps(f)(again)


def _after(args: Any, dy: jax.Array) -> Any:
    """The same arguments, of which floats cannot be had before dy.

    0 times a number is not 0 for certain (NaN), so the compiler cannot drop it. Where dy is not
    finite neither is the gradient, of which this is a part.
    """
    nothing = dy[(0,) * dy.ndim] * jnp.zeros((), dy.dtype)

    def late(x):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return x + nothing.astype(x.dtype).reshape((1,) * x.ndim)

    return jax.tree.map(late, args)
