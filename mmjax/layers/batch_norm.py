"""Batch norm: by the statistics of the batch in training, or by stored ones that stay fixed."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.parameters import param
from mmjax.layers.precision import activation_dtype
from mmjax.system import STATISTICS

COUPLES_ROWS = "batch norm uses the statistics of the batch"


class BatchNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the last axis.

    In training mean and variance are those of the batch over all other axes; the running ones, in
    the collection `batch_stats`, move towards them (towards the unbiased variance, as in PyTorch)
    where that collection is mutable and there is more than one value per channel. In evaluation
    the running ones are used.

    Attributes:
      momentum: of the batch in the running statistics.

    Source: Ioffe and Szegedy 2015 (arXiv 1502.03167), algorithms 1 and 2; torch.nn.BatchNorm2d.
    """

    epsilon: float = 1e-5
    momentum: float = 0.1
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, valid: jax.Array | None = None
    ) -> jax.Array:
        """x [B, ..., C] normalized, in the stream's dtype.

        Args:
          valid: [B] bool, rows of the batch that count in its statistics; None: all. Without any,
            the running ones are used.
        """
        size = x.shape[-1:]
        scale = param(self, "scale", nn.initializers.ones, size, ("channels",))
        bias = param(self, "bias", nn.initializers.zeros, size, ("channels",))
        mean = self.variable(STATISTICS, "mean", jnp.zeros, size, jnp.float32)
        variance = self.variable(STATISTICS, "variance", jnp.ones, size, jnp.float32)
        wide = x.astype(jnp.float32)
        used = mean.value, variance.value
        if train:
            weight = jnp.ones(len(x)) if valid is None else valid.astype(jnp.float32)
            weight = weight.reshape(-1, *(1,) * (x.ndim - 1))
            count = weight.sum() * (x[0].size // x.shape[-1])
            found = _statistics(wide, weight, count)
            used = tuple(jnp.where(count > 0, new, old) for new, old in zip(found, used))
            if self.is_mutable_collection(STATISTICS):
                keep = jnp.where(count > 1, 1 - self.momentum, 1.0)
                unbiased = used[1] * (count / jnp.maximum(count - 1, 1))
                mean.value = keep * mean.value + (1 - keep) * used[0]
                variance.value = keep * variance.value + (1 - keep) * unbiased
        y = _normalized(wide, *used, scale, bias, self.epsilon)
        return y.astype(activation_dtype(self.dtype))


class FrozenBatchNorm(nn.Module):
    """As `BatchNorm` in evaluation, also in training.

    `mean` and `variance` are parameters without a gradient: a loaded network is fine-tuned with its
    stored statistics, and no example depends on the others of its batch.
    Source: Ioffe and Szegedy 2015 (arXiv 1502.03167), algorithm 2.
    """

    epsilon: float = 1e-3
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def vector(name, init):
            return param(self, name, init, (x.shape[-1],), ("channels",))

        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        scale, bias = vector("scale", ones), vector("bias", zeros)
        mean, variance = (
            jax.lax.stop_gradient(v) for v in (vector("mean", zeros), vector("variance", ones))
        )
        y = _normalized(x.astype(jnp.float32), mean, variance, scale, bias, self.epsilon)
        return y.astype(activation_dtype(self.dtype))


def _normalized(
    x: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
) -> jax.Array:
    """x [B, ..., C], with vectors [C]."""
    factor = scale * jax.lax.rsqrt(variance + epsilon)
    shape = (1,) * (x.ndim - 1) + (-1,)
    return (x - mean.reshape(shape)) * factor.reshape(shape) + bias.reshape(shape)


def _statistics(x: jax.Array, weight: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance [C] of x [B, ..., C], by weights of the rows [B, 1, ...]."""
    axes = tuple(range(x.ndim - 1))
    count = jnp.maximum(count, 1)
    mean = (x * weight).sum(axes) / count
    centered = x - mean.reshape((1,) * (x.ndim - 1) + (-1,))
    return mean, (jnp.square(centered) * weight).sum(axes) / count
