"""Attention that keeps keys and values in a cache, with queries that share key heads."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.attention import MASKED
from mmjax.layers.linear import Linear
from mmjax.layers.precision import activation_dtype, on_cpu
from mmjax.layers.rotary import rotate
from mmjax.sharding import shard


def is_decoding(module: nn.Module) -> bool:
    """True where the caller made `cache` mutable (as it is also while parameters are made)."""
    return module.is_mutable_collection("cache") and not module.is_initializing()


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array | None, dtype
) -> tuple[jax.Array, jax.Array]:
    """softmax(query · key / sqrt(D)) · value, logits in fp32.

    Args:
      query: [B, L, K, G, D]: each of the K key heads serves G query heads.
      key, value: [B, K, S, D], or [B * K, S, D].
      seen: [B, L, S] or [B, 1, S] bool, which query sees which key; None is all true.

    Returns:
      [B, L, K, G, D], and the weights [B, K, L, G, S] in fp32.
    """
    # Not einsum, which swaps the operands of the second product: XLA's CPU backend then turns a
    # cache's values around at every token.
    heads = key.ndim - 2
    batch = (tuple(range(heads)),) * 2
    query = query.transpose(0, 2, 1, 3, 4) * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    split = query.shape  # [B, K, L, G, D]
    query = query.reshape(*key.shape[:heads], -1, split[-1])
    logits = jax.lax.dot_general(
        query, key, (((heads + 1,), (heads + 1,)), batch), preferred_element_type=jnp.float32
    ).reshape(*split[:-1], -1)
    if seen is not None:
        logits = jnp.where(seen[:, None, :, None], logits, MASKED)
    weights = jax.nn.softmax(logits, axis=-1)
    y = weights.astype(dtype).reshape(*query.shape[:-1], -1)
    y = jax.lax.dot_general(y, value, (((heads + 1,), (heads,)), batch))
    return y.reshape(split).transpose(0, 2, 1, 3, 4), weights


def _sow(module: nn.Module, weights: jax.Array) -> None:
    """[B, K, Lq, G, S] as [B, H, Lq, S] into `intermediates`, if that is mutable."""
    if module.is_mutable_collection("intermediates"):
        b, k, q, g, s = weights.shape
        weights = weights.swapaxes(2, 3).reshape(b, k * g, q, s)
        module.sow("intermediates", "attention_weights", weights)


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
    cache_length: int = 0
    in_init: Callable = nn.initializers.xavier_uniform()
    out_init: Callable = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(
        self, x: jax.Array, seen: jax.Array, angles: jax.Array | None, slot: jax.Array | None
    ) -> jax.Array:
        """The result for each token.

        Args:
          seen: [B, L, S] bool, which token sees which: S is L, or the slots of a cache.
          angles: of rotary positions [B, L, D/2].
          slot: where the tokens' keys go in the cache, if there is one.
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
        if is_decoding(self):
            key, value = (self._cached(n, a, slot) for n, a in (("key", key), ("value", value)))
        y, weights = attend(query, key, value, seen, activation_dtype(self.dtype))
        _sow(self, weights)
        return Linear(
            (x.shape[-1],),
            ("heads", "head_dim", "embed"),
            self.use_bias,
            self.dtype,
            self.out_init,
            name="out",
        )(y.reshape(*x.shape[:2], self.heads, self.head_dim))

    def _cached(self, name: str, new: jax.Array, slot: jax.Array | None) -> jax.Array:
        """Put `new` [B, K, L, D] into the cache; what is attended to: at first `new` alone.

        On CPU rows and heads are one axis: XLA's backend merges them for its products, and then
        writes a cache of two axes twice, each time copying the whole.
        """
        if on_cpu():
            new = new.reshape(-1, *new.shape[2:])
        if slot is None:
            room = (0, self.cache_length - new.shape[-2])
            cache = jnp.pad(new, (*((0, 0),) * (new.ndim - 2), room, (0, 0)))
        else:
            cache = self.get_variable("cache", name)
            cache = jax.lax.dynamic_update_slice_in_dim(cache, new, slot, new.ndim - 2)
        self.put_variable("cache", name, cache)
        return new if slot is None else cache


class CachedCrossAttention(nn.Module):
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
        self, x: jax.Array, context: jax.Array | None, seen: jax.Array | None = None
    ) -> jax.Array:
        """The result for each token.

        Args:
          context: [B, S, C]; unread where a cache has its keys and values.
          seen: [B, L, S] or [B, 1, S] bool; None is all true.
        """
        split, names = (self.heads, self.head_dim), ("heads", "head_dim")
        query = Linear(
            split, ("embed", *names), self.use_bias, self.dtype, self.in_init, name="query"
        )(x)
        if self.has_variable("cache", "key"):
            key, value = (self.get_variable("cache", name) for name in ("key", "value"))
        else:
            kv = Linear(
                (2, *split),
                ("embed", "qkv", *names),
                self.use_bias,
                self.dtype,
                self.in_init,
                name="key_value",
            )(context)
            kv = shard(kv, "batch", "length", "qkv", "heads", "head_dim")
            key, value = (jnp.swapaxes(kv[:, :, i], 1, 2) for i in range(2))
        if is_decoding(self):
            self.put_variable("cache", "key", key)
            self.put_variable("cache", "value", value)
        query = query.reshape(key.shape[0], -1, self.heads, 1, self.head_dim)
        y, weights = attend(query, key, value, seen, activation_dtype(self.dtype))
        if seen is not None:
            y = jnp.where(seen.any(-1)[..., None, None, None], y, jnp.zeros_like(y))
        _sow(self, weights)
        return Linear(
            (x.shape[-1],),
            (*names, "embed"),
            self.use_bias,
            self.dtype,
            self.out_init,
            name="out",
        )(y.reshape(*x.shape[:2], *split))
