"""Layer norm and RMS norm, with fp32 statistics saved for the backward pass; L2 normalization."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.parameters import broadcast_last, param
from mmjax.sharding import shard


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, dtype) -> jax.Array:
    """(x - mean) / sqrt(var + epsilon) * scale + bias over the last axis, returned in `dtype`.

    x [..., D], scale and bias [D]. Statistics are fp32. Saves x, mean and 1/std for the backward
    pass, where automatic differentiation would save several arrays of x's size.
    Source: Ba et al. 2016 (arXiv 1607.06450), eq. 4.
    """
    return _forward(x, scale, bias, epsilon, dtype)[0]


def _forward(x, scale, bias, epsilon, dtype):
    wide = x.astype(jnp.float32)
    mean = wide.mean(-1, keepdims=True)
    centered = wide - mean
    if x.dtype == jnp.bfloat16:
        # Both statistics in one pass over x; the cancellation error is far below x's rounding.
        variance = jnp.square(wide).mean(-1, keepdims=True) - jnp.square(mean)
        rstd = jax.lax.rsqrt(jnp.maximum(variance, 0.0) + epsilon)
    else:
        rstd = jax.lax.rsqrt(jnp.square(centered).mean(-1, keepdims=True) + epsilon)
    y = centered * rstd * broadcast_last(scale, x.ndim) + broadcast_last(bias, x.ndim)
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
    """`layer_norm` with learned scale and bias; the result has `dtype`.

    Attributes:
      axis: logical name of the normalized axis.
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def rms_norm(x: jax.Array, scale: jax.Array, epsilon: float, dtype) -> jax.Array:
    """x / sqrt(mean(x²) + epsilon) * scale over the last axis, returned in `dtype`.

    x [..., D], scale [D]. Statistics are fp32. Source: Zhang and Sennrich 2019
    (arXiv 1910.07467), eq. 4.
    """
    return _rms_forward(x, scale, epsilon, dtype)[0]


def _rms_forward(x, scale, epsilon, dtype):
    wide = x.astype(jnp.float32)
    rrms = jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + epsilon)
    y = wide * rrms * broadcast_last(scale, x.ndim)
    return y.astype(dtype), (x, rrms, scale)


def _rms_backward(epsilon, dtype, saved, dy):
    del epsilon, dtype
    x, rrms, scale = saved
    dy = dy.astype(jnp.float32)
    normed = x.astype(jnp.float32) * rrms
    dnormed = dy * broadcast_last(scale, dy.ndim)
    dx = rrms * (dnormed - normed * (dnormed * normed).mean(-1, keepdims=True))
    return dx.astype(x.dtype), (dy * normed).sum(tuple(range(dy.ndim - 1)))


rms_norm.defvjp(_rms_forward, _rms_backward)


class RMSNorm(nn.Module):
    """`rms_norm` with a learned scale; attributes as in `LayerNorm`."""

    epsilon: float = 1e-6
    dtype: str = "float32"
    axis: str = "embed"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = param(self, "scale", nn.initializers.ones, (x.shape[-1],), (self.axis,))
        return rms_norm(x, scale, self.epsilon, jnp.dtype(self.dtype))


NORMS = {"layer": LayerNorm, "rms": RMSNorm}


def norm_class(kind: str) -> type[nn.Module]:
    """The norm class of that name.

    Raises:
      ValueError: an unknown name.
    """
    if kind not in NORMS:
        raise ValueError(f"Unknown norm '{kind}'; use one of {sorted(NORMS)}.")
    return NORMS[kind]


def unit_length(features: jax.Array) -> jax.Array:
    """Vectors [B, ..., embed_dim] divided by their L2 norm."""
    names = ("batch", *(None,) * (features.ndim - 2), "joint")
    squared = jnp.square(features).sum(-1, keepdims=True)
    return shard(features * jax.lax.rsqrt(squared + 1e-12), *names)
