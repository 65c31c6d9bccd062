"""Fusion by cross-attention: one modality attends to the others, or each attends to all others."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.block import Block
from mmjax.layers.fusion.streams import Fused, Fusion, Stream, average, presence
from mmjax.layers.stack import stack


class _BothWays(nn.Module):
    """One layer: each modality's block attends to the other modalities' inputs of the layer."""

    modalities: tuple[str, ...]
    block: Mapping[str, Any]

    @nn.compact
    def __call__(self, tokens: tuple[jax.Array, ...], masks: tuple[jax.Array, ...]):
        after = []
        for i, m in enumerate(self.modalities):
            others = [j for j in range(len(tokens)) if j != i]
            context = jnp.concatenate([tokens[j] for j in others], axis=1)
            context_mask = jnp.concatenate([masks[j] for j in others], axis=1)
            block = Block(**self.block, name=m)
            after.append(block(tokens[i], context, masks[i], context_mask)[0])
        return tuple(after), None


class OneWay(Fusion):
    """The tokens of one modality attend to those of all others; the result is their mean.

    Attributes:
      query: that modality; None is the first of `modalities`. Where it is missing, its
        placeholder is the query.

    Raises:
      ValueError: an unknown query, or nothing to attend to.
    """

    query: str | None = None

    def fuse(self, streams: Mapping[str, Stream], train: bool) -> Fused:
        check_two(self)
        query = self.query or self.modalities[0]
        if query not in self.modalities:
            raise ValueError(
                f"query of the fusion is '{query}': use one of {', '.join(self.modalities)}."
            )
        others = [s for m, s in streams.items() if m != query]
        context = jnp.concatenate([s.tokens for s in others], axis=1)
        context_mask = jnp.concatenate([s.mask for s in others], axis=1)
        layers = stack(Block, self.depth, self, (nn.broadcast,) * 3)(
            **_block(self, train), name="layers"
        )
        x, _ = layers(streams[query].tokens, context, streams[query].mask, context_mask)
        tokens = {m: s.tokens for m, s in streams.items()} | {query: x}
        tokens, pooled = self.norm_and_pool(tokens, streams)
        return Fused(pooled[:, self.modalities.index(query)], tokens)


class Bidirectional(Fusion):
    """Every modality attends to all others in each layer; the result is the mean of those present.

    Source: the cross-modality layers of LXMERT, Tan & Bansal 2019 (arXiv 1908.07490), section
    2.2, with self-attention before cross-attention.

    Raises:
      ValueError: there is only one modality.
    """

    def fuse(self, streams: Mapping[str, Stream], train: bool) -> Fused:
        check_two(self)
        layers = stack(_BothWays, self.depth, self, (nn.broadcast,))(
            self.modalities, _block(self, train), name="layers"
        )
        tokens = tuple(s.tokens for s in streams.values())
        after, _ = layers(tokens, tuple(s.mask for s in streams.values()))
        tokens, pooled = self.norm_and_pool(dict(zip(streams, after)), streams)
        return Fused(average(pooled, presence(streams)), tokens)


def _block(fusion: Fusion, train: bool) -> dict[str, Any]:
    """Fields of a block with self-attention, cross-attention and an MLP."""
    cross = {"branches": 3 * fusion.depth, "cross": "between", "norm_context": True}
    return fusion.block(train) | cross


def check_two(fusion: Fusion) -> None:
    """Raise ValueError where there is no second modality to attend to."""
    if len(fusion.modalities) < 2:
        raise ValueError(
            f"Cross-attention needs two modalities, and the model has {fusion.modalities}: add one "
            "or use the fusion 'early'."
        )
