"""The layers of a decoder: self-attention, and three ways to look at a context."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.grouped_attention import CachedCrossAttention, GroupedQueryAttention
from mmjax.layers.norm import norm_class
from mmjax.layers.parameters import param
from mmjax.layers.transformer import MLP
from mmjax.sharding import shard


class Layer(nn.Module):
    """What the layers of a decoder share: their settings, and a residual branch's dropout."""

    heads: int
    kv_heads: int
    head_dim: int
    mlp_dim: int
    depth: int
    norm: str
    epsilon: float
    activation: str
    gated_mlp: bool
    use_bias: bool
    dropout: float
    dtype: str
    train: bool
    cache_length: int

    def normed(self, x: jax.Array, name: str) -> jax.Array:
        return norm_class(self.norm)(self.epsilon, self.dtype, name=name)(x)

    def inits(self, x: jax.Array) -> dict[str, Callable]:
        """Initial scales, as of `transformer.Block`."""
        width = x.shape[-1]
        scales = {"in_init": width**-0.5, "out_init": width**-0.5 * (2 * self.depth) ** -0.5}
        return {name: nn.initializers.normal(scale) for name, scale in scales.items()}

    def mlp(self) -> MLP:
        return MLP(
            self.mlp_dim,
            self.activation,
            self.dropout,
            self.dtype,
            self.train,
            self.depth,
            self.gated_mlp,
            self.use_bias,
            name="mlp",
        )

    def cross_attention(self, x: jax.Array, name: str) -> CachedCrossAttention:
        init = self.inits(x)
        return CachedCrossAttention(
            self.heads, self.head_dim, self.use_bias, self.dtype, **init, name=name
        )

    def add(self, x: jax.Array, branch: jax.Array) -> jax.Array:
        branch = nn.Dropout(self.dropout, deterministic=not self.train)(branch)
        return shard(x + branch, "batch", "length", "act_embed")


class DecoderLayer(Layer):
    """x + attention(norm(x)), perhaps x + cross-attention(norm(x)), then x + mlp(norm(x))."""

    @nn.compact
    def __call__(self, x, own: Mapping[str, Any], cross: Callable | None):
        attention = GroupedQueryAttention(
            self.heads,
            self.kv_heads,
            self.head_dim,
            self.use_bias,
            self.dtype,
            self.cache_length,
            **self.inits(x),
            name="attention",
        )
        x = self.add(x, attention(self.normed(x, "norm_attention"), **own))
        if cross is not None:
            x = cross(x)
        return self.add(x, self.mlp()(self.normed(x, "norm_mlp")))


class PlainCross(Layer):
    """x + cross-attention(norm(x)): the middle of a layer of Vaswani et al. 2017, section 3.1."""

    @nn.compact
    def __call__(self, x, context, seen):
        attention = self.cross_attention(x, "attention")
        return self.add(x, attention(self.normed(x, "norm"), context, seen))


class GatedCross(Layer):
    """x + tanh(a) cross-attention(norm(x)), then x + tanh(b) mlp(norm(x)); a and b start at 0.

    A token that sees nothing of the context passes unchanged, by the second branch too (which the
    paper's would change): text without images is read by the language model alone.

    Source: Flamingo, Alayrac et al. 2022 (arXiv 2204.14198), section 3.1.2 and figure 4.
    """

    @nn.compact
    def __call__(self, x, context, seen):
        looks = None
        if seen is not None:  # beams: each row of the context serves several of x
            looks = jnp.repeat(seen.any(-1, keepdims=True), len(x) // len(seen), axis=0)

        def gate(name, branch):
            value = param(self, name, nn.initializers.zeros, (), ())
            branch = branch * jnp.tanh(value).astype(branch.dtype)
            return branch if looks is None else jnp.where(looks, branch, jnp.zeros_like(branch))

        attention = self.cross_attention(x, "attention")
        y = attention(self.normed(x, "norm_attention"), context, seen)
        x = self.add(x, gate("gate_attention", y))
        y = self.mlp()(self.normed(x, "norm_mlp"))
        return self.add(x, gate("gate_mlp", y))


class BlockCross(Layer):
    """x + cross-attention(norm(x), norm(context)), then x + mlp(norm(x)): a block of its own.

    Source: open_clip's transformer.py, MultimodalTransformer, for CoCa.
    """

    @nn.compact
    def __call__(self, x, context, seen):
        attention = self.cross_attention(x, "attention")
        if context is not None:  # else the cache has its keys
            context = self.normed(context, "norm_context")
        x = self.add(x, attention(self.normed(x, "norm_attention"), context, seen))
        return self.add(x, self.mlp()(self.normed(x, "norm_mlp")))


CROSS = {"plain": PlainCross, "gated": GatedCross, "block": BlockCross}


class Group(nn.Module):
    """`size` decoder layers, the last of which perhaps looks at a context."""

    size: int
    cross: str | None
    layer: Mapping[str, Any]

    @nn.compact
    def __call__(self, x, shared: Mapping[str, Any]):
        for i in range(self.size):
            looks = None
            if self.cross and i == self.size - 1:
                looks = functools.partial(
                    CROSS[self.cross](**self.layer, name="cross"),
                    context=shared["context"],
                    seen=shared["context_seen"],
                )
            if looks and self.cross == "gated":
                x = looks(x)
            inside = looks if self.cross == "plain" else None
            x = DecoderLayer(**self.layer, name=f"layer{i}")(x, shared["own"], inside)
            if looks and self.cross == "block":
                x = looks(x)
        return x, None
