"""Layer normalisation with fp32 statistics that are kept for the backward pass."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.parameters import broadcast_last, param


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, dtype) -> jax.Array:
    """(x - mean) / sqrt(var + epsilon) * scale + bias over the last axis, given in `dtype`.

    x [..., D], scale and bias [D]. Statistics are fp32. Keeps x, mean and 1/std for the backward,
    where automatic differentiation would keep several arrays of x's size.
    Source: Ba et al. 2016 (arXiv 1607.06450), eq. 4.
    """
    return _forward(x, scale, bias, epsilon, dtype)[0]


def _forward(x, scale, bias, epsilon, dtype):
    wide = x.astype(jnp.float32)
    mean = wide.mean(-1, keepdims=True)
    centred = wide - mean
    rstd = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
    y = centred * rstd * broadcast_last(scale, x.ndim) + broadcast_last(bias, x.ndim)
    return y.astype(dtype), (x, mean, rstd, scale)


def _backward(epsilon, dtype, saved, dy):
    del epsilon, dtype
    x, mean, rstd, scale = saved
    dy = dy.astype(jnp.float32)
    normed = (x.astype(jnp.float32) - mean) * rstd
    batch = tuple(range(dy.ndim - 1))
    dscale, dbias = (dy * normed).sum(batch), dy.sum(batch)
    dnormed = dy * broadcast_last(scale, dy.ndim)
    dx = rstd * (
        dnormed
        - dnormed.mean(-1, keepdims=True)
        - normed * (dnormed * normed).mean(-1, keepdims=True)
    )
    return dx.astype(x.dtype), dscale, dbias


layer_norm.defvjp(_forward, _backward)


class LayerNorm(nn.Module):
    """`layer_norm` with its scale and bias; the result has `dtype`.

    Attributes:
      axis: logical name of the normalised axis.
    """

    epsilon: float = 1e-6
    dtype: str = "float32"
    axis: str = "embed"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1],)
        scale = param(self, "scale", nn.initializers.ones, shape, (self.axis,))
        bias = param(self, "bias", nn.initializers.zeros, shape, (self.axis,))
        return layer_norm(x, scale, bias, self.epsilon, jnp.dtype(self.dtype))
