"""Attention whose keys and values can come from a cache, with queries that share key heads."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.attention import MASKED
from mmjax.layers.linear import Linear
from mmjax.layers.precision import activation_dtype
from mmjax.layers.rotary import rotate
from mmjax.sharding import shard


class Keys(NamedTuple):
    """What queries look at: key and value [B, K, S, D], and which query may see which.

    `seen` is [B, Lq, S] or [B, 1, S] bool; None is all true. K: key heads.
    """

    key: jax.Array
    value: jax.Array
    seen: jax.Array | None


def attend(query: jax.Array, looked_at: Sequence[Keys], dtype) -> tuple[jax.Array, jax.Array]:
    """softmax(query · key / sqrt(D)) · value over the keys of all parts, logits in fp32.

    The parts are not put together first: a cache would be copied.

    Args:
      query: [B, Lq, K, G, D]: each of the K key heads serves G query heads.

    Returns:
      [B, Lq, K, G, D], and the weights [B, K, G, Lq, S] over all parts, in fp32.
    """
    query = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    logits = []
    for key, _, seen in looked_at:
        part = jnp.einsum("bqkgd,bksd->bkgqs", query, key, preferred_element_type=jnp.float32)
        logits.append(part if seen is None else jnp.where(seen[:, None, None], part, MASKED))
    weights = jax.nn.softmax(jnp.concatenate(logits, -1), axis=-1)
    y, at = None, 0
    for key, value, _ in looked_at:
        part = weights[..., at : at + key.shape[2]].astype(dtype)
        part = jnp.einsum("bkgqs,bksd->bqkgd", part, value)
        y, at = part if y is None else y + part, at + key.shape[2]
    return y, weights


def _sow(module: nn.Module, weights: jax.Array) -> None:
    """[B, K, G, Lq, S] as [B, H, Lq, S] into `intermediates`, if that is mutable."""
    if module.is_mutable_collection("intermediates"):
        b, k, g, q, s = weights.shape
        module.sow("intermediates", "attention_weights", weights.reshape(b, k * g, q, s))


class GroupedQueryAttention(nn.Module):
    """Self-attention [B, L, D] -> [B, L, D] in which `heads / kv_heads` queries share a key.

    One fused projection: of each key head its queries, its key and its value, so that a mesh
    splits the key heads. kv_heads = heads is multi-head attention, 1 multi-query attention.
    Source: Ainslie et al. 2023 (arXiv 2305.13245).

    Raises:
      ValueError: heads that kv_heads does not divide.
    """

    heads: int
    kv_heads: int
    head_dim: int
    use_bias: bool = True
    dtype: str = "float32"
    in_init: Callable = nn.initializers.xavier_uniform()
    out_init: Callable = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        seen: jax.Array,
        angles: jax.Array | None = None,
        cached: Keys | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """The result, and the keys and values [B, K, L, D] of x.

        Args:
          seen: [B, L, L] bool, which of the tokens of x sees which; angles: of rotary positions
            [B, L, D/2]; cached: keys of earlier tokens.
        """
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}: change one."
            )
        group = self.heads // self.kv_heads
        qkv = Linear(
            (self.kv_heads, group + 2, self.head_dim),
            ("embed", "heads", "qkv", "head_dim"),
            self.use_bias,
            self.dtype,
            self.in_init,
            name="qkv",
        )(x)
        qkv = shard(qkv, "batch", "length", "heads", "qkv", "head_dim")
        query_key, value = qkv[..., : group + 1, :], qkv[..., group + 1, :]
        if angles is not None:
            query_key = rotate(query_key, angles)
        query, key = query_key[..., :group, :], query_key[..., group, :]
        key, value = (jnp.swapaxes(a, 1, 2) for a in (key, value))
        looked_at = [Keys(key, value, seen)] if cached is None else [cached, Keys(key, value, seen)]
        y, weights = attend(query, looked_at, activation_dtype(self.dtype))
        _sow(self, weights)
        y = Linear(
            (x.shape[-1],),
            ("heads", "head_dim", "embed"),
            self.use_bias,
            self.dtype,
            self.out_init,
            name="out",
        )(y.reshape(*x.shape[:2], self.heads, self.head_dim))
        return y, (key, value)


class CrossAttention(nn.Module):
    """Queries of x [R, L, D] look at a context [B, S, C]: -> [R, L, D].

    R is B, or a multiple (beams): then each run of R / B rows looks at one row of the context,
    which is not repeated. A token that may see nothing gets 0 (before the bias of `out`).
    Sows its weights as `MultiHeadAttention` does.
    """

    heads: int
    head_dim: int
    use_bias: bool = True
    dtype: str = "float32"
    in_init: Callable = nn.initializers.xavier_uniform()
    out_init: Callable = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None,
        seen: jax.Array | None = None,
        cached: tuple[jax.Array, jax.Array] | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """The result, and the context's keys and values [B, H, S, D].

        Args:
          context: [B, S, C]; unread where `cached` gives its keys and values.
          seen: [B, L, S] or [B, 1, S] bool; None is all true.
        """
        split, names = (self.heads, self.head_dim), ("heads", "head_dim")
        query = Linear(
            split, ("embed", *names), self.use_bias, self.dtype, self.in_init, name="query"
        )(x)
        if cached is None:
            kv = Linear(
                (2, *split),
                ("embed", "qkv", *names),
                self.use_bias,
                self.dtype,
                self.in_init,
                name="key_value",
            )(context)
            kv = shard(kv, "batch", "length", "qkv", "heads", "head_dim")
            cached = tuple(jnp.swapaxes(kv[:, :, i], 1, 2) for i in range(2))
        query = query.reshape(cached[0].shape[0], -1, self.heads, 1, self.head_dim)
        y, weights = attend(query, [Keys(*cached, seen)], activation_dtype(self.dtype))
        if seen is not None:
            y = jnp.where(seen.any(-1)[..., None, None, None], y, jnp.zeros_like(y))
        _sow(self, weights)
        y = Linear(
            (x.shape[-1],),
            (*names, "embed"),
            self.use_bias,
            self.dtype,
            self.out_init,
            name="out",
        )(y.reshape(*x.shape[:2], *split))
        return y, cached
