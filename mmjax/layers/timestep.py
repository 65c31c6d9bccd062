"""The embedding of diffusion timesteps."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.linear import Linear


def waves(time: jax.Array, width: int, longest: float = 10_000.0) -> jax.Array:
    """Cosines, then sines, of time [B] at width / 2 frequencies from 1 to 1 / longest, which it
    does not reach: [B, width] float32; a zero at the end if the width is odd.

    Source: openai/guided-diffusion, nn.py, timestep_embedding; diffusers' get_timestep_embedding
    with flip_sin_to_cos=True and downscale_freq_shift=0.
    """
    half = width // 2
    frequency = jnp.exp(-math.log(longest) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = time.astype(jnp.float32)[:, None] * frequency[None]
    found = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    return jnp.pad(found, ((0, 0), (0, width % 2)))


class TimestepEmbed(nn.Module):
    """time [B] -> [B, width]: `waves` of so many frequencies through two linear maps.

    Attributes:
      waves: numbers of the first map's input; inner: of its output; width: of the result.
    """

    waves: int
    inner: int
    width: int
    act: Callable[[jax.Array], jax.Array] = nn.silu
    dtype: str = "float32"

    @nn.compact
    def __call__(self, time: jax.Array) -> jax.Array:
        x = waves(time, self.waves)
        x = Linear((self.inner,), ("embed", "mlp"), dtype=self.dtype, name="up")(x)
        return Linear((self.width,), ("mlp", "embed"), dtype=self.dtype, name="down")(self.act(x))
