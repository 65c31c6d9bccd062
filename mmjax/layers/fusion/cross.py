"""Fusion by cross-attention: one modality looks at the others, or each at all others."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.attention import MultiHeadAttention
from mmjax.layers.cross_attention import CrossAttention
from mmjax.layers.fusion.streams import Fused, Fusion, Stream, average, presence
from mmjax.layers.norm import LayerNorm
from mmjax.layers.stack import stack
from mmjax.layers.transformer import MLP
from mmjax.sharding import shard


class CrossBlock(nn.Module):
    """x + attention(x), then + cross-attention(x; context), then + mlp(x); pre-norm."""

    heads: int
    mlp_dim: int
    depth: int
    activation: str
    dropout: float
    epsilon: float
    dtype: str
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, context: jax.Array, context_mask: jax.Array):
        """x [B, L, D] and context [B, Lc, D], each with its mask -> ([B, L, D], None)."""

        def norm(x, name):
            return LayerNorm(self.epsilon, self.dtype, name=name)(x)

        def add(x, branch):
            branch = nn.Dropout(self.dropout, deterministic=not self.train)(branch)
            return shard(x + branch, "batch", "length", "act_embed")

        # The scales of `Block`, for three branches in place of two.
        small = nn.initializers.normal(x.shape[-1] ** -0.5)
        out = nn.initializers.normal((3 * self.depth * x.shape[-1]) ** -0.5)
        inits = {"dtype": self.dtype, "qkv_init": small, "out_init": out}
        y = norm(x, "norm_attention")
        x = add(x, MultiHeadAttention(self.heads, **inits, name="attention")(y, mask))
        y, context = norm(x, "norm_cross"), norm(context, "norm_context")
        x = add(x, CrossAttention(self.heads, **inits, name="cross")(y, context, context_mask))
        y = norm(x, "norm_mlp")
        mlp = MLP(
            self.mlp_dim,
            self.activation,
            self.dropout,
            self.dtype,
            self.train,
            self.depth,
            name="mlp",
        )
        return add(x, mlp(y)), None


class _BothWays(nn.Module):
    """One layer: each modality's own CrossBlock looks at what the others held before the layer."""

    modalities: tuple[str, ...]
    block: tuple

    @nn.compact
    def __call__(self, tokens: tuple[jax.Array, ...], masks: tuple[jax.Array, ...]):
        after = []
        for i, m in enumerate(self.modalities):
            others = [j for j in range(len(tokens)) if j != i]
            context = jnp.concatenate([tokens[j] for j in others], axis=1)
            context_mask = jnp.concatenate([masks[j] for j in others], axis=1)
            block = CrossBlock(*self.block, name=m)
            after.append(block(tokens[i], masks[i], context, context_mask)[0])
        return tuple(after), None


class OneWay(Fusion):
    """The tokens of one modality look at those of all others; the result is their mean.

    Attributes:
      query: that modality; None is the first of `modalities`. Where it is missing, its
        placeholder looks.

    Raises:
      ValueError: an unknown query, or nothing to look at.
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
        layers = stack(CrossBlock, self.depth, self, (nn.broadcast,) * 3)(
            *_block_settings(self, train), name="layers"
        )
        x, _ = layers(streams[query].tokens, streams[query].mask, context, context_mask)
        tokens = {m: s.tokens for m, s in streams.items()} | {query: x}
        tokens, pooled = self.norm_and_pool(tokens, streams)
        return Fused(pooled[:, self.modalities.index(query)], tokens)


class Bidirectional(Fusion):
    """Every modality looks at all others, layer by layer; the mean of those present.

    Source: the cross-modality layers of LXMERT, Tan & Bansal 2019 (arXiv 1908.07490), section
    2.2, with self-attention before cross-attention.

    Raises:
      ValueError: there is only one modality.
    """

    def fuse(self, streams: Mapping[str, Stream], train: bool) -> Fused:
        check_two(self)
        layers = stack(_BothWays, self.depth, self, (nn.broadcast,))(
            self.modalities, _block_settings(self, train), name="layers"
        )
        tokens = tuple(s.tokens for s in streams.values())
        after, _ = layers(tokens, tuple(s.mask for s in streams.values()))
        tokens, pooled = self.norm_and_pool(dict(zip(streams, after)), streams)
        return Fused(average(pooled, presence(streams)), tokens)


def _block_settings(fusion: Fusion, train: bool) -> tuple:
    return (
        fusion.heads,
        fusion.mlp_dim,
        fusion.depth,
        fusion.activation,
        fusion.dropout,
        fusion.epsilon,
        fusion.dtype,
        train,
    )


def check_two(fusion: Fusion) -> None:
    """Raise ValueError where there is no second modality to look at."""
    if len(fusion.modalities) < 2:
        raise ValueError(
            f"Cross-attention needs two modalities, and the model has {fusion.modalities}: add one "
            "or use the fusion 'early'."
        )
