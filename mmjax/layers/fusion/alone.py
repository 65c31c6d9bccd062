"""Classifiers of one modality alone, for examples that miss another."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.layers.fusion.streams import HasTransformers, Stream, masked_softmax
from mmjax.layers.linear import class_head
from mmjax.layers.norm import LayerNorm
from mmjax.layers.pooling import pool_tokens
from mmjax.layers.precision import activation_dtype


class Alone(HasTransformers, kw_only=True):
    """A modality's tokens [B, L, D] -> `depth` blocks -> their mean -> logits [B, C] in fp32."""

    classes: int

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> jax.Array:
        x = stream.tokens
        if self.depth:
            x = self.transformer("transformer")(x, stream.mask, train=train)
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
