"""Classifiers of one modality alone, for examples that miss another."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.layers.fusion.streams import Stream, masked_softmax
from mmjax.layers.linear import class_head
from mmjax.layers.norm import LayerNorm
from mmjax.layers.pooling import pool_tokens
from mmjax.layers.precision import activation_dtype
from mmjax.layers.transformer import Transformer


class Alone(nn.Module):
    """A modality's tokens [B, L, D] -> `depth` blocks -> their mean -> logits [B, C] in fp32."""

    classes: int
    depth: int
    heads: int
    mlp_dim: int
    activation: str = "gelu"
    dropout: float = 0.0
    epsilon: float = 1e-6
    dtype: str = "float32"

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> jax.Array:
        x = stream.tokens
        if self.depth:
            x = Transformer(
                self.depth,
                self.heads,
                self.mlp_dim,
                activation=self.activation,
                dropout=self.dropout,
                epsilon=self.epsilon,
                dtype=self.dtype,
                name="transformer",
            )(x, stream.mask, train=train)
        x = LayerNorm(self.epsilon, activation_dtype(self.dtype), name="norm")(x)
        pooled = pool_tokens(x, "mean", stream.mask).astype(jnp.float32)
        return class_head(self.classes)(pooled)


def fall_back(
    fused: Float[Array, "b c"], alone: Float[Array, "b m c"], present: Bool[Array, "b m"]
) -> Float[Array, "b c"]:
    """The fused logits [B, C] of examples that have all modalities, or none; the mean of the
    logits [B, M, C] of those present for all others."""
    weights = masked_softmax(jnp.zeros(present.shape), present)
    mean = jnp.einsum("bm,bmc->bc", weights, alone)
    some = present.any(axis=1) & ~present.all(axis=1)
    return jnp.where(some[:, None], mean, fused)
