"""Pooling of a sequence of tokens to one vector, or to a few tokens."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.attention import Attention
from mmjax.layers.linear import Linear
from mmjax.layers.mlp import MLP
from mmjax.layers.norm import LayerNorm
from mmjax.layers.parameters import param

# The result is one token of the sequence, so per-token operations can come after the pooling.
ONE_TOKEN = ("cls", "end", "last")
POOLS = (*ONE_TOKEN, "mean", "map")


def check_pool(pool: str, where: str, allowed: tuple[str, ...] = POOLS) -> None:
    """Raise ValueError unless `pool` is one of `allowed`."""
    if pool not in allowed:
        raise ValueError(f"{where} is '{pool}'; use one of {sorted(allowed)}.")


def end_position(mask: jax.Array) -> jax.Array:
    """Position of the last true entry of each row: [B, L] bool -> [B] int32 (L-1 if none)."""
    return mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1).astype(jnp.int32)


def pool_tokens(x: jax.Array, pool: str, mask: jax.Array | None = None) -> jax.Array:
    """[B, L, D] -> [B, D], without parameters.

    Args:
      pool: "cls" (the first), "last", "end" (the last true position of the mask), or of the true
        positions, in fp32: "mean", "mean_sqrt" (the sum by the root of their number),
        "weighted_mean" (position i, from 1, weighs i) or "max".
      mask: [B, L] bool; None is all true.
    """
    if pool == "cls":
        return x[:, 0]
    if pool == "last" or (pool == "end" and mask is None):
        return x[:, -1]
    if pool == "end":
        index = end_position(mask)[:, None, None]
        return jnp.take_along_axis(x, index, axis=1)[:, 0]
    wide = x.astype(jnp.float32)
    if mask is None:
        if pool == "mean":
            return wide.mean(1).astype(x.dtype)
        mask = jnp.ones(x.shape[:2], bool)
    if pool == "max":
        return jnp.where(mask[..., None], wide, -jnp.inf).max(1).astype(x.dtype)
    weight = mask.astype(jnp.float32)
    if pool == "weighted_mean":
        weight = weight * jnp.arange(1, x.shape[1] + 1, dtype=jnp.float32)[None]
    total = jnp.maximum(weight.sum(1, keepdims=True), 1.0)
    weight = weight / (jnp.sqrt(total) if pool == "mean_sqrt" else total)
    return jnp.einsum("bld,bl->bd", wide, weight).astype(x.dtype)


class AttentionPool(nn.Module):
    """Multi-head attention with one learned query, then a residual MLP: [B, L, D] -> [B, D].

    With a mask [B, M, L], of several parts of a row: [B, M, D].

    Source: the MAP head of Zhai et al. 2022 (arXiv 2106.04560) and SigLIP; big_vision's
    MAPHead in models/vit.py.
    """

    heads: int
    mlp_dim: int
    activation: str = "gelu"
    epsilon: float = 1e-6
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        batch, _, width = x.shape
        parts = mask.shape[1] if mask is not None and mask.ndim == 3 else 1
        xavier = nn.initializers.xavier_uniform()
        probe = param(self, "probe", xavier, (1, width), (None, "embed"))
        probe = jnp.broadcast_to(probe[None], (batch, parts, width)).astype(self.dtype)
        y = Attention(self.heads, cross=True, dtype=self.dtype, name="attention")(
            probe, x, mask=mask
        )
        z = LayerNorm(self.epsilon, self.dtype, name="norm")(y)
        z = MLP(self.mlp_dim, self.activation, dtype=self.dtype, name="mlp")(z)
        return y + z if mask is not None and mask.ndim == 3 else (y + z)[:, 0]


class SequencePool(nn.Module):
    """The mean of the tokens by learned weights, a softmax of a linear map: [B, L, D] -> [B, D].

    Source: Hassani et al. 2021 (arXiv 2104.05704), section 3.2, SeqPool.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.normal(0.02)
        logits = Linear((1,), ("embed", None), kernel_init=init, name="weight")(x)
        weights = jax.nn.softmax(logits.astype(jnp.float32), axis=1)
        return jnp.einsum("bld,bl->bd", x.astype(jnp.float32), weights[..., 0]).astype(x.dtype)


class QueryPool(nn.Module):
    """Cross-attention from learned queries: [B, L, D] -> [B, queries, width].

    Source: the attentional poolers of CoCa, Yu et al. 2022 (arXiv 2205.01917), section 3.2.
    """

    queries: int
    width: int
    heads: int
    epsilon: float = 1e-6
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """`mask`: [B, L] bool, true on valid tokens of x."""
        init, shape = nn.initializers.normal(self.width**-0.5), (self.queries, self.width)
        query = param(self, "queries", init, shape, ("length", "embed"))
        query = jnp.broadcast_to(query[None], (x.shape[0], *shape))
        query = LayerNorm(self.epsilon, self.dtype, name="norm_queries")(query)
        x = LayerNorm(self.epsilon, self.dtype, name="norm_input")(x)
        y = Attention(self.heads, cross=True, dtype=self.dtype, name="attention")(
            query, x, mask=mask
        )
        return LayerNorm(self.epsilon, self.dtype, name="norm")(y)
