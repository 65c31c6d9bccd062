"""Recomputation in the backward pass, to save memory."""

import functools
from collections.abc import Callable

import jax


def recompute(f: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`f`, which saves only its arguments for the backward pass and is recomputed there.

    A `jax.checkpoint` for layers outside a loop on XLA's CPU backend, where `jax.checkpoint` saves
    nothing: the compiler may schedule the second computation right after the first and keep its
    result. Here the first argument depends on the cotangent, which prevents that.

    Args:
      f: (x, *others) -> y, where x and y are floats; the others may be trees of any dtype, or None.
        It must not close over arrays.
    """

    @jax.custom_vjp
    def again(*args):
        return f(*args)

    def forward(*args):
        return f(*args), args

    def backward(args, dy):
        x, *others = args
        # The compiler cannot remove the sum, as 0 * dy may be NaN. Where dy is not finite, neither
        # is the gradient.
        same = x.ndim == dy.ndim and x.shape[:-1] == dy.shape[:-1]
        some = dy[..., :1] if same else dy.ravel()[:1].reshape((1,) * x.ndim)
        x = x + (0 * some).astype(x.dtype)
        return jax.vjp(f, x, *others)[1](dy)

    again.defvjp(forward, backward)
    return functools.wraps(f)(again)
