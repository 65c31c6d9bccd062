"""Work that the backward pass does again, so that less is kept between the two passes."""

import functools
from collections.abc import Callable

import jax


def recompute(f: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`f`, of which only the arguments are kept for the backward pass: it computes f again there.

    As `jax.checkpoint`, for layers outside a loop on XLA's CPU backend, where that saves nothing:
    the compiler is free to do the second computation right after the first, and to keep its result
    as before. Here the first argument depends on the cotangent, so it has to wait.

    Args:
      f: (x, *others) -> y, where x [..., M] and y [..., N] are floats with the same leading axes;
        the others may be of any dtype, or None. It closes over no array.
    """

    @jax.custom_vjp
    def again(*args):
        return f(*args)

    def forward(*args):
        return f(*args), args

    def backward(args, dy):
        x, *others = args
        # 0 times a number may be NaN, so the compiler keeps the sum. Where dy is not finite,
        # neither is the gradient.
        x = x + (0 * dy[..., :1]).astype(x.dtype)
        return jax.vjp(f, x, *others)[1](dy)

    again.defvjp(forward, backward)
    return functools.wraps(f)(again)
