"""Attention between the tokens of prompts and those of an image, in both directions."""

import flax.linen as nn
import jax
from einops import rearrange

from mmjax.layers.attention import attend
from mmjax.layers.linear import Linear, add_bias
from mmjax.layers.mlp import MLP
from mmjax.layers.norm import LayerNorm
from mmjax.layers.parameters import param
from mmjax.layers.precision import activation_dtype


class NarrowAttention(nn.Module):
    """Multi-head attention of q [N, L, D] to keys and values [N, S, D], with maps of their own.

    Attributes:
      width: of queries, keys and values, all heads together.
    """

    heads: int
    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None = None
    ) -> jax.Array:
        """[N, L, D]; `mask` [N, S] bool is true on valid keys."""
        features = (self.heads, self.width // self.heads)
        query, key, value = (
            Linear(features, ("embed", "heads", "head_dim"), dtype=self.dtype, name=name)(x)
            for name, x in (("query", q), ("key", k), ("value", v))
        )
        key, value = (rearrange(x, "n s h d -> n h s d") for x in (key, value))
        visible = None if mask is None else mask[:, None, None, None]
        dtype = activation_dtype(self.dtype)
        y, _ = attend(query[:, :, :, None], key, value, visible=visible, dtype=dtype)
        names = ("heads", "head_dim", "embed")
        return Linear((q.shape[-1],), names, dtype=self.dtype, name="out")(y[:, :, :, 0])


class TwoWayBlock(nn.Module):
    """Tokens [N, T, D] and image [N, S, D] -> both, after each has attended to the other.

    Self-attention of the tokens, attention of the tokens to the image, an MLP on the tokens, and
    attention of the image to the tokens; a norm after each. Positions are added to queries and
    keys, not to values.

    Attributes:
      first: self-attention has neither positions nor a residual branch.

    Source: Kirillov et al. 2023 (arXiv 2304.02643), appendix A, "Lightweight mask decoder";
    facebookresearch/segment-anything, transformer.py.
    """

    heads: int
    mlp_dim: int
    first: bool = False
    activation: str = "relu"
    epsilon: float = 1e-6
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        image: jax.Array,
        token_position: jax.Array,
        image_position: jax.Array,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """The next tokens and image.

        Args:
          token_position: [N, T, D]; image_position: [1, S, D].
          mask: [N, T] bool, true on valid tokens; the others are not attended to.
        """
        width = tokens.shape[-1]

        def attention(name, width):
            return NarrowAttention(self.heads, width, self.dtype, name=name)

        def norm(name, x):
            return LayerNorm(self.epsilon, activation_dtype(self.dtype), name=name)(x)

        own = attention("own", width)
        if self.first:
            tokens = own(tokens, tokens, tokens, mask)
        else:
            placed = tokens + token_position
            tokens = tokens + own(placed, placed, tokens, mask)
        tokens = norm("norm_own", tokens)
        placed = image + image_position
        to_image = attention("to_image", width // 2)(tokens + token_position, placed, image)
        tokens = norm("norm_to_image", tokens + to_image)
        mlp = MLP(self.mlp_dim, self.activation, dtype=self.dtype, name="mlp")(tokens)
        tokens = norm("norm_mlp", tokens + mlp)
        to_tokens = attention("to_tokens", width // 2)
        image = image + to_tokens(placed, tokens + token_position, tokens, mask)
        return tokens, norm("norm_to_tokens", image)


class Doubling(nn.Module):
    """A transposed convolution of 2 x 2 and stride 2: [N, H, W, C] -> [N, 2H, 2W, channels]."""

    channels: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        names = ("channels", None, None, None)
        y = Linear((2, 2, self.channels), names, False, self.dtype, name="map")(x)
        y = rearrange(y, "n h w p q c -> n (h p) (w q) c")
        bias = param(self, "bias", nn.initializers.zeros, (self.channels,), ("channels",))
        return add_bias(y, bias)
