"""Swin blocks: attention within windows of an image, shifted in every second block."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from mmjax.layers.attention import Attention
from mmjax.layers.linear import Linear
from mmjax.layers.mlp import MLP
from mmjax.layers.norm import LayerNorm
from mmjax.layers.parameters import param
from mmjax.layers.stochastic_depth import stochastic_depth
from mmjax.sharding import shard


class SwinBlock(nn.Module):
    """x [B, H, W, D] -> [B, H, W, D]: attention within windows, then an MLP.

    A grid that the window does not divide is padded with zeros at the bottom and the right; they
    take part in the attention, as in the original.

    Attributes:
      window: side of a window; shift: rows and columns by which the windows are moved. Tokens that
        meet in a window only because the grid wraps around do not attend to each other.
      drop_rate: of stochastic depth, of the attention branch alone.

    Source: Liu et al. 2021 (arXiv 2103.14030), section 3.2; microsoft/Swin-Transformer.
    """

    heads: int
    window: int
    shift: int
    mlp_dim: int
    activation: str = "gelu"
    qkv_bias: bool = True
    dropout: float = 0.0
    drop_rate: float = 0.0
    epsilon: float = 1e-5
    dtype: str = "float32"
    train: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, dim = x.shape
        side, shift = self.window, self.shift
        y = LayerNorm(self.epsilon, self.dtype, name="norm_attention")(x)
        y = jnp.pad(y, ((0, 0), (0, -height % side), (0, -width % side), (0, 0)))
        y = jnp.roll(y, (-shift, -shift), (1, 2)) if shift else y
        grid = (y.shape[1] // side, y.shape[2] // side)
        y = rearrange(y, "b (h p) (w q) d -> (b h w) (p q) d", p=side, q=side)

        mask = None
        if shift:
            mask = jnp.asarray(same_region(grid, side, shift))
            mask = jnp.tile(mask, (batch, 1, 1))
        y = Attention(
            self.heads,
            qkv_bias=self.qkv_bias,
            dtype=self.dtype,
            qkv_init=nn.initializers.normal(0.02),
            out_init=nn.initializers.normal(0.02),
            name="attention",
        )(y, mask=mask, bias=self._bias())
        y = rearrange(y, "(b h w) (p q) d -> b (h p) (w q) d", h=grid[0], w=grid[1], p=side, q=side)
        y = jnp.roll(y, (shift, shift), (1, 2)) if shift else y
        y = y[:, :height, :width]
        if self.train and self.drop_rate:
            y = stochastic_depth(y, self.drop_rate, self.make_rng("dropout"))
        x = shard(x + y, "batch", "height", "width", "act_embed")

        y = LayerNorm(self.epsilon, self.dtype, name="norm_mlp")(x)
        y = rearrange(y, "b h w d -> b (h w) d")
        y = MLP(self.mlp_dim, self.activation, 0.0, self.dtype, self.train, name="mlp")(y)
        y = nn.Dropout(self.dropout, deterministic=not self.train)(y)
        return shard(x + y.reshape(x.shape), "batch", "height", "width", "act_embed")

    def _bias(self) -> jax.Array:
        """[1, heads, L, L] by the offset of the key from the query, learned."""
        offsets = (2 * self.window - 1) ** 2
        init = nn.initializers.truncated_normal(0.02)
        table = param(self, "position_bias", init, (offsets, self.heads), (None, "heads"))
        return rearrange(table[relative_index(self.window)], "l s h -> 1 h l s")


def relative_index(window: int) -> np.ndarray:
    """[L, L]: the row of the bias table for each query and key of a window of L tokens."""
    at = np.indices((window, window)).reshape(2, -1)
    apart = at[:, :, None] - at[:, None] + window - 1
    return apart[0] * (2 * window - 1) + apart[1]


def same_region(grid: tuple[int, int], window: int, shift: int) -> np.ndarray:
    """[windows, L, L] bool: query and key of a shifted window are neighbors in the image."""

    def regions(windows):
        at = np.arange(windows * window)
        return (at >= (windows - 1) * window).astype(int) + (at >= windows * window - shift)

    rows, columns = (regions(n) for n in grid)
    region = rearrange(
        3 * rows[:, None] + columns, "(h p) (w q) -> (h w) (p q)", p=window, q=window
    )
    return region[:, :, None] == region[:, None]


class PatchMerging(nn.Module):
    """[B, H, W, D] -> [B, H/2, W/2, 2 D]: a norm and a linear map of each 2 x 2 tokens.

    Source: Liu et al. 2021 (arXiv 2103.14030), section 3.1.
    """

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        x = rearrange(x, "b (h p) (w q) d -> b h w (q p d)", p=2, q=2)
        x = LayerNorm(1e-5, self.dtype, name="norm")(x)
        init = nn.initializers.normal(0.02)
        names = ("embed", None)
        return Linear((2 * width,), names, False, self.dtype, init, name="reduction")(x)
