"""Early fusion: all tokens through one transformer."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from mmjax.layers.fusion.streams import Fused, Fusion, Stream
from mmjax.layers.norm import LayerNorm
from mmjax.layers.pooling import pool_tokens
from mmjax.layers.precision import activation_dtype


class Early(Fusion):
    """The tokens of all modalities concatenated, then `depth` blocks, then their mean."""

    def fuse(self, streams: Mapping[str, Stream], train: bool) -> Fused:
        mask = jnp.concatenate([s.mask for s in streams.values()], axis=1)
        x = jnp.concatenate([s.tokens for s in streams.values()], axis=1)
        x = self.transformer("transformer")(x, mask, train=train)
        x = LayerNorm(self.epsilon, activation_dtype(self.dtype), name="norm")(x)
        ends = np.cumsum([s.tokens.shape[1] for s in streams.values()])
        parts = jnp.split(x, ends[:-1], axis=1)
        return Fused(pool_tokens(x, "mean", mask), dict(zip(streams, parts)))
