"""Group norm of feature maps, with the shift and scale of a condition in the same pass."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, repeat

from mmjax.layers.parameters import broadcast_last, param


class GroupNorm(nn.Module):
    """x [B, H, W, C] normalized over height, width and groups of channels; the result has `dtype`.

    Statistics are fp32.

    Attributes:
      axis: logical name of the channels.

    Raises:
      ValueError: groups that do not divide the channels.

    Source: Wu and He 2018 (arXiv 1803.08494), eq. 7; conditions: Dhariwal and Nichol 2021 (arXiv
    2105.05233), section 3, adaptive group normalization.
    """

    groups: int = 32
    epsilon: float = 1e-5
    dtype: str = "float32"
    axis: str = "embed"

    @nn.compact
    def __call__(self, x: jax.Array, condition: tuple[jax.Array, jax.Array] | None = None):
        """The normalized x; with a condition (scale [B, C], shift [B, C]) times 1 + scale, plus
        shift."""
        channels = x.shape[-1]
        if channels % self.groups:
            raise ValueError(
                f"A group norm has {self.groups} groups and {channels} channels: set groups to a "
                "divisor of all widths."
            )
        scale = param(self, "scale", nn.initializers.ones, (channels,), (self.axis,))
        bias = param(self, "bias", nn.initializers.zeros, (channels,), (self.axis,))
        wide = x.astype(jnp.float32)
        mean = self._spread(wide.mean((1, 2)), channels)
        centered = wide - mean
        variance = self._spread(jnp.square(centered).mean((1, 2)), channels)
        factor = jax.lax.rsqrt(variance + self.epsilon) * broadcast_last(scale, x.ndim)
        offset = broadcast_last(bias, x.ndim)
        if condition is not None:
            more, shift = (c.astype(jnp.float32)[:, None, None] for c in condition)
            factor, offset = factor * (1 + more), offset * (1 + more) + shift
        return (centered * factor + offset).astype(self.dtype)

    def _spread(self, x: jax.Array, channels: int) -> jax.Array:
        """[B, C] -> [B, 1, 1, C], each channel with the mean of its group."""
        x = rearrange(x, "b (g c) -> b g c", g=self.groups).mean(-1)
        return repeat(x, "b g -> b 1 1 (g c)", c=channels // self.groups)
