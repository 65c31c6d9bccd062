"""Perceiver resampler: from any number of images or frames to a fixed number of tokens."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.block import Block
from mmjax.layers.norm import LayerNorm
from mmjax.layers.parameters import param
from mmjax.layers.precision import activation_dtype
from mmjax.layers.stack import stack


class PerceiverResampler(nn.Module):
    """Visual features [B, T, S, D] of T frames of S tokens -> [B, latents, D].

    M media per example, [B, M, T, S, D], give [B, M, latents, D]; each is resampled separately.
    The latents of a fully masked medium do not depend on its content.

    Attributes:
      frames: size of the table of time embeddings; with more frames than that, the table is
        interpolated linearly. 0: no time embeddings.
      media: size of the table of media embeddings; 0: no media embeddings.
      mlp_ratio: hidden width of the MLP over D.

    Raises:
      ValueError: features of another rank, a mask that does not fit them, or more media than the
        table holds.

    Source: Flamingo, Alayrac et al. 2022 (arXiv 2204.14198), figure 5 and section 3.1.1;
    interpolated time embeddings: appendix A.1.1. Media embeddings: open_flamingo, helpers.py.
    """

    latents: int = 64
    depth: int = 6
    heads: int = 8
    head_dim: int | None = None
    mlp_ratio: int = 4
    activation: str = "gelu"
    frames: int = 8
    media: int = 0
    epsilon: float = 1e-5
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """`mask`: bool, true on valid frames (all axes of x but the last two) or tokens (all but
        the last)."""
        if x.ndim not in (4, 5):
            raise ValueError(
                "A Perceiver resampler takes [B, frames, tokens, width] or [B, media, frames, "
                f"tokens, width], not {list(x.shape)}."
            )
        if x.ndim == 4:
            return self._resample(x[:, None], None if mask is None else mask[:, None])[:, 0]
        return self._resample(x, mask)

    def _resample(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        batch, media, frames, tokens, width = x.shape
        stream = activation_dtype(self.dtype)
        x = x.astype(stream)
        if self.frames:
            times = spread(self._table("time_embedding", self.frames, width), frames)
            x = x + times.astype(stream)[None, None, :, None]
        if self.media:
            if media > self.media:
                raise ValueError(
                    f"There are {media} media per example, and the resampler's table holds "
                    f"{self.media}: raise its setting 'media', or give fewer."
                )
            table = self._table("media_embedding", self.media, width)[:media]
            x = x + table.astype(stream)[None, :, None, None]
        x = x.reshape(batch * media, frames * tokens, width)
        if mask is not None:
            if mask.shape not in ((batch, media, frames), (batch, media, frames, tokens)):
                raise ValueError(
                    f"The resampler's mask is {list(mask.shape)} for {media} media of {frames} "
                    f"frames of {tokens} tokens: give one value per frame, or one per token."
                )
            mask = mask.reshape(batch, media, frames, -1)
            mask = jnp.broadcast_to(mask, (batch, media, frames, tokens)).reshape(x.shape[:2])
            mask = jnp.pad(mask, ((0, 0), (0, self.latents)), constant_values=True)

        init = nn.initializers.normal(0.02)
        latents = param(self, "latents", init, (self.latents, width), ("length", "embed"))
        latents = jnp.broadcast_to(latents.astype(stream), (x.shape[0], self.latents, width))
        layers = stack(_Layer, self.depth, self, (nn.broadcast,) * 3)(
            self.heads,
            self.mlp_ratio * width,
            2 * self.depth,
            head_dim=self.head_dim,
            cross="only",
            norm_context=True,
            activation=self.activation,
            qkv_bias=False,
            out_bias=False,
            epsilon=self.epsilon,
            dtype=self.dtype,
            name="layers",
        )
        latents, _ = layers(latents, x, None, mask)
        latents = LayerNorm(self.epsilon, stream, name="norm")(latents)
        return latents.reshape(batch, media, self.latents, width)

    def _table(self, name: str, rows: int, width: int) -> jax.Array:
        init = nn.initializers.normal(0.02)
        return param(self, name, init, (rows, width), ("length", "embed"))


def spread(table: jax.Array, frames: int) -> jax.Array:
    """The first rows of a table [N, D], or with more than N frames the table interpolated to
    [frames, D], first and last row fixed."""
    stored = len(table)
    if frames <= stored:
        return table[:frames]
    at = jnp.linspace(0.0, stored - 1.0, frames)
    low = jnp.clip(at.astype(jnp.int32), 0, max(0, stored - 2))
    fraction = (at - low.astype(jnp.float32))[:, None]
    return (1.0 - fraction) * table[low] + fraction * table[jnp.minimum(low + 1, stored - 1)]


class _Layer(Block):
    """A block in which the latents attend to the features and to themselves."""

    def _keys(self, y: jax.Array, context: jax.Array) -> jax.Array:
        return jnp.concatenate([super()._keys(y, context), y], axis=1)
