"""Bottleneck fusion: the modalities exchange information only through a few shared tokens."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.block import Block
from mmjax.layers.fusion.streams import Fused, Fusion, Stream, average, presence
from mmjax.layers.parameters import param
from mmjax.layers.stack import stack


class _Layer(nn.Module):
    """A block per modality over [its tokens; shared]; then shared is the mean over the blocks."""

    modalities: tuple[str, ...]
    block: Mapping[str, Any]

    @nn.compact
    def __call__(self, carry: tuple, masks: tuple[jax.Array, ...]):
        tokens, shared = carry
        after, shared_after = [], []
        for m, x, mask in zip(self.modalities, tokens, masks):
            mask = jnp.pad(mask, ((0, 0), (0, shared.shape[1])), constant_values=True)
            x = jnp.concatenate([x, shared], axis=1)
            x, _ = Block(**self.block, name=m)(x, None, mask)
            after.append(x[:, : -shared.shape[1]])
            shared_after.append(x[:, -shared.shape[1] :])
        return (tuple(after), sum(shared_after) / len(shared_after)), None


class Bottleneck(Fusion):
    """`depth` layers with one block per modality, which share `tokens` learned tokens.

    The features are each modality's mean over its own tokens, averaged over present modalities.

    Attributes:
      tokens: number of shared tokens.

    Source: Nagrani et al. 2021 (arXiv 2107.00135), section 3.2, equations 8 and 9, and figure 2.
    """

    tokens: int = 4

    def fuse(self, streams: Mapping[str, Stream], train: bool) -> Fused:
        some = next(iter(streams.values())).tokens
        shape = (self.tokens, some.shape[-1])
        shared = param(self, "shared", nn.initializers.normal(0.02), shape, ("length", "embed"))
        shared = jnp.broadcast_to(shared.astype(some.dtype)[None], (len(some), *shape))
        layers = stack(_Layer, self.depth, self, (nn.broadcast,))(
            self.modalities, self.block(train), name="layers"
        )
        tokens = tuple(s.tokens for s in streams.values())
        (after, _), _ = layers((tokens, shared), tuple(s.mask for s in streams.values()))
        tokens, pooled = self.norm_and_pool(dict(zip(streams, after)), streams)
        return Fused(average(pooled, presence(streams)), tokens)
