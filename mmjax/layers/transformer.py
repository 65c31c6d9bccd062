"""A stack of transformer blocks whose parameters are stacked along one `layers` axis."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.block import Block
from mmjax.layers.precision import activation_dtype
from mmjax.layers.stack import stack


class Transformer(nn.Module):
    """`depth` blocks over [B, L, D]; every parameter has a leading `layers` axis.

    Attributes:
      norm, cross, gated_mlp, qkv_bias, key_bias, layer_scale (its `scale`), attention_dropout: see
        `Block`.
      stochastic_depth: rate of the last block; it grows linearly from 0 at the first.
      remat: "none", "full" (save only the blocks' inputs) or "dots" (save the results of matmuls).

    Raises:
      ValueError: an unknown `remat`.
    """

    depth: int
    heads: int
    mlp_dim: int
    causal: bool = False
    norm: str = "pre"
    activation: str = "gelu"
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    remat: str = "none"
    epsilon: float = 1e-6
    dtype: str = "float32"
    gated_mlp: bool = False
    qkv_bias: bool = True
    layer_scale: float | None = None
    cross: str = "none"
    key_bias: bool = True
    attention_dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        *,
        context: jax.Array | None = None,
        context_mask: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """x after all blocks.

        Args:
          mask: [B, L] bool, true on valid tokens.
          context: [B, S, C], with `cross`; context_mask: [B, S] bool.
        """
        rates = None
        if train and self.stochastic_depth:
            rates = jnp.linspace(0.0, self.stochastic_depth, self.depth)
        every = nn.broadcast
        layers = stack(Block, self.depth, self, (every, every, every, 0), self.remat)(
            self.heads,
            self.mlp_dim,
            2 if self.norm == "post" else 2 * self.depth,
            causal=self.causal,
            norm=self.norm,
            cross=self.cross,
            scale=self.layer_scale,
            activation=self.activation,
            gated_mlp=self.gated_mlp,
            qkv_bias=self.qkv_bias,
            key_bias=self.key_bias,
            attention_dropout=self.attention_dropout,
            dropout=self.dropout,
            epsilon=self.epsilon,
            dtype=self.dtype,
            train=train,
            name="layers",
        )
        if self.norm == "post":
            x = x.astype(activation_dtype(self.dtype))
        return layers(x, context, mask, context_mask, rates)[0]
