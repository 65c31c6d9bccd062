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
      f: (x, *others) -> y, where x [..., M] and y [..., N] are floats with the same leading axes;
        the others may be of any dtype, or None. It must not close over arrays.
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
        x = x + (0 * dy[..., :1]).astype(x.dtype)
        return jax.vjp(f, x, *others)[1](dy)

    again.defvjp(forward, backward)
    return functools.wraps(f)(again)
