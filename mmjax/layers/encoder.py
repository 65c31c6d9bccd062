"""A stack of post-LN transformer blocks, as in BERT; parameters lie along one `layers` axis."""

import flax.linen as nn
import jax

from mmjax.layers.attention import MultiHeadAttention
from mmjax.layers.norm import LayerNorm
from mmjax.layers.precision import activation_dtype
from mmjax.layers.stack import stack
from mmjax.layers.transformer import MLP
from mmjax.sharding import shard


class PostNormBlock(nn.Module):
    """norm(x + attention(x)), then norm(x + mlp(x)).

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.1; initial scale 0.02 as in
    google-research/bert, modeling.py.
    """

    heads: int
    mlp_dim: int
    activation: str
    dropout: float
    epsilon: float
    dtype: str
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array, key_mask: jax.Array | None):
        stream, normal = activation_dtype(self.dtype), nn.initializers.normal(0.02)

        def add(x, branch, name):
            branch = nn.Dropout(self.dropout, deterministic=not self.train)(branch)
            x = LayerNorm(self.epsilon, stream, name=name)(x + branch)
            return shard(x, "batch", "length", "act_embed")

        attention = MultiHeadAttention(
            self.heads, dtype=self.dtype, qkv_init=normal, out_init=normal, name="attention"
        )
        mlp = MLP(self.mlp_dim, self.activation, 0.0, self.dtype, self.train, name="mlp")
        x = add(x, attention(x, key_mask), "norm_attention")
        return add(x, mlp(x), "norm_mlp"), None


class Encoder(nn.Module):
    """`depth` post-LN blocks over [B, L, D]; every token sees all that `key_mask` [B, L] bool lets.

    Attributes:
      remat: "none", "full" (keep only the blocks' inputs) or "dots" (keep the matmuls' results).

    Raises:
      ValueError: an unknown `remat`.
    """

    depth: int
    heads: int
    mlp_dim: int
    activation: str = "gelu"
    dropout: float = 0.0
    remat: str = "none"
    epsilon: float = 1e-12
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: jax.Array, key_mask: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array:
        layers = stack(PostNormBlock, self.depth, self, (nn.broadcast,), self.remat)(
            self.heads,
            self.mlp_dim,
            self.activation,
            self.dropout,
            self.epsilon,
            self.dtype,
            train,
            name="layers",
        )
        return layers(x.astype(activation_dtype(self.dtype)), key_mask)[0]
