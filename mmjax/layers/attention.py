"""Attention: one module for self- and cross-attention, in training and with a key/value cache.

Grouped queries (several query heads per key head) are supported; logits and softmax are fp32.
Parameters:

    self-attention   qkv        [D, H/K + 2, K, head_dim]: the queries of each key head, key, value
    cross-attention  query      [D, H, head_dim]
                     key_value  [Dkv, 2, K, head_dim]
    both             out        [H, head_dim, D]

with H query heads and K key heads (K = H: multi-head attention, where `qkv` is
[D, 3, H, head_dim]). Query head h uses key head h // (H / K). A mesh shards the key heads.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from jax.ad_checkpoint import checkpoint_name

from mmjax.layers import fused_attention as fused
from mmjax.layers import platform
from mmjax.layers.linear import Linear
from mmjax.layers.precision import activation_dtype
from mmjax.layers.recompute import recompute
from mmjax.layers.rotary import rotate
from mmjax.sharding import shard

# Finite, so that a query whose keys are all masked gets the mean of the values and not NaN.
MASKED = float(jnp.finfo(jnp.float32).min)
MANY = 2**24  # attention weights, from which on they are computed head by head


def is_decoding(module: nn.Module) -> bool:
    """True where the caller made `cache` mutable, except during initialization."""
    return module.is_mutable_collection("cache") and not module.is_initializing()


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    visible: jax.Array | None = None,
    bias: jax.Array | None = None,
    offset: jax.Array | None = None,
    factor: jax.Array | None = None,
    zero_masked: bool = False,
    scale: float | None = None,
    cap: float | None = None,
    dtype="float32",
) -> tuple[jax.Array, jax.Array]:
    """softmax(query · key / sqrt(D) + bias) · value, logits and softmax in fp32.

    Args:
      query: [B, L, K, G, D]: G query heads for each of the K key heads.
      key, value: [B, K, S, D], or [B * K, S, D].
      visible: attention mask, bool, broadcast to [B, K, L, G, S]; None is all true.
      bias: float, broadcast to [B, K, L, G, S].
      offset: fp32, added to the weights [B, K, L, G, S].
      factor: fp32, multiplied with the weights [B, K, L, G, S], as in dropout.
      zero_masked: the weights of a fully masked query are 0; otherwise they are 1 / S.
      scale: a factor of the logits in place of 1 / sqrt(D).
      cap: the logits become cap · tanh(logits / cap), before bias and mask.
      dtype: of the weights in the product with the values.

    Returns:
      [B, L, K, G, D], and the weights [B, K, L, G, S] in fp32.
    """
    # Not einsum, which swaps the operands of the second product: XLA's CPU backend then transposes
    # the cached values at every token. The scale is on the queries, the smaller array.
    heads = key.ndim - 2
    batch = (tuple(range(heads)),) * 2
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    query = query.transpose(0, 2, 1, 3, 4) * jnp.asarray(scale, query.dtype)
    split = query.shape  # [B, K, L, G, D]
    query = query.reshape(*key.shape[:heads], -1, split[-1])
    logits = jax.lax.dot_general(
        query, key, (((heads + 1,), (heads + 1,)), batch), preferred_element_type=jnp.float32
    ).reshape(*split[:-1], -1)
    if cap is not None:
        logits = cap * jnp.tanh(logits / cap)
    if bias is not None:
        logits = logits + bias.astype(jnp.float32)
    if visible is not None:
        logits = jnp.where(visible, logits, MASKED)
    weights = jax.nn.softmax(logits, axis=-1)
    if visible is not None and zero_masked:
        weights = jnp.where(visible.any(-1, keepdims=True), weights, 0.0)
    if offset is not None:
        weights = weights + offset
    if factor is not None:
        weights = weights * factor
    y = weights.astype(dtype).reshape(*query.shape[:-1], -1)
    y = jax.lax.dot_general(y, value, (((heads + 1,), (heads,)), batch))
    return y.reshape(split).transpose(0, 2, 1, 3, 4), weights


def attend_by_head(query: jax.Array, key: jax.Array, value: jax.Array, dtype="float32"):
    """The result of `attend` without masks, one key head of one row after the other.

    The weights of long sequences do not fit the caches of a CPU all at once: in an encoder of 1,500
    tokens with 8 heads and 4 rows attention takes 0.36 s in place of 0.66 s.
    """
    rows = len(query)
    query = rearrange(query, "b l k g d -> (b k) 1 l 1 g d")
    key, value = (x.reshape(-1, 1, 1, *x.shape[-2:]) for x in (key, value))

    def one(query, key, value):
        return attend(query, key, value, dtype=dtype)[0]

    if platform.current().recomputes and dtype == "float32":
        one = recompute(one)
    y = jax.lax.map(lambda head: one(*head), (query, key, value))
    return rearrange(y, "(b k) 1 l 1 g d -> b l k g d", b=rows)


class Attention(nn.Module):
    """Multi-head attention of q [B, L, D] to kv, or to q itself: -> [B, L, D].

    Sows its weights [B, H, L, S] as `attention_weights` where `intermediates` is mutable; it then
    adds the variable of that name in the collection `offsets` to them, whose gradient is that of
    the weights (see `layers/sown.py`). With `cache_length`, it stores keys and values where `cache`
    is mutable: self-attention those of up to that many tokens, cross-attention those of its first
    call; later calls need no kv.

    Attributes:
      kv_heads: heads of keys and values; None is `heads`.
      head_dim: None is D / heads.
      cross: attend to kv, which may have another width.
      causal: a query attends to the keys up to its own position.
      key_bias: False: with qkv_bias, the keys alone have no bias. (It would add the same to all
        logits of a query, which changes nothing.)
      cache_length: slots of the cache that the first call creates; 0: none, or it exists.
      rotary_magnitude: see `rotate`.
      dropout: of the weights; the caller sets it in training alone.
      scale, logit_cap: scale and cap of `attend`.

    Raises:
      ValueError: head counts that do not divide, kv without `cross`, or `cross` without kv.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2; grouped queries: Ainslie et al.
    2023 (arXiv 2305.13245).
    """

    heads: int
    kv_heads: int | None = None
    head_dim: int | None = None
    cross: bool = False
    causal: bool = False
    qkv_bias: bool = True
    out_bias: bool = True
    dtype: str = "float32"
    cache_length: int = 0
    rotary_magnitude: float = 1.0
    qkv_init: Callable = nn.initializers.xavier_uniform()
    out_init: Callable = nn.initializers.xavier_uniform()
    key_bias: bool = True
    dropout: float = 0.0
    scale: float | None = None
    logit_cap: float | None = None

    @nn.compact
    def __call__(
        self,
        q: jax.Array,
        kv: jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
        angles: jax.Array | None = None,
        slot: jax.Array | None = None,
    ) -> jax.Array:
        """The result for each token of q.

        Args:
          kv: [B, S, Dkv], with `cross`. q may have a multiple of B rows (beams): each row of kv is
            then shared by consecutive rows of q.
          mask: bool, true on valid keys: [B, S], or per query [B, L, S] or [B, 1, S]. The result
            of a fully masked query is exactly 0 in cross-attention (before the bias of `out`), and
            the mean of all values in self-attention.
          bias: [B or 1, H, L, S], added to the logits.
          angles: of rotary positions [B, L, head_dim / 2], in self-attention.
          slot: [] int32, the cache slot for the first key of q; None: no cache yet.
        """
        self._check(q, kv)
        kv_heads = self.kv_heads or self.heads
        if self._is_fused(q, kv, mask, bias):
            y = self._fused_cross(q, kv, mask) if self.cross else self._fused(q, mask, angles)
        else:
            query, key, value = self._cross(q, kv) if self.cross else self._own(q, angles, slot)
            if bias is not None:
                bias = rearrange(bias, "b (k g) l s -> b k l g s", k=kv_heads)
            visible = self._visible(mask, query.shape[1], key.shape[-2], slot)
            dtype, sows = activation_dtype(self.dtype), self.is_mutable_collection("intermediates")
            offset = None
            if sows and self.has_variable("offsets", "attention_weights"):
                offset = self.get_variable("offsets", "attention_weights")
                offset = rearrange(offset, "b (k g) l s -> b k l g s", k=kv_heads)

            def result(query, key, value, visible, bias, factor):
                options = {"offset": offset, "zero_masked": self.cross, "dtype": dtype}
                options |= {"visible": visible, "bias": bias, "factor": factor}
                options |= {"scale": self.scale, "cap": self.logit_cap}
                y, weights = attend(query, key, value, **options)
                if sows:
                    weights = rearrange(weights, "b k l g s -> b (k g) l s")
                    self.sow("intermediates", "attention_weights", weights)
                return y

            weights = query[..., 0].size * key.shape[-2]  # of an unknown batch size in an export
            many = platform.current().attends_by_head and weights >= MANY and self._is_plain
            factor = self._dropped(query, key) if self.dropout else None
            if many and visible is None and bias is None and factor is None and not sows:
                y = attend_by_head(query, key, value, dtype)
            else:
                if platform.current().recomputes and self.dtype == "float32" and not sows:
                    result = recompute(result)
                y = result(query, key, value, visible, bias, factor)
            y = y.reshape(*q.shape[:2], self.heads, -1)
        return self._out(y, q.shape[-1])

    def _dropped(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """Dropout's factors of the weights, [B, K, L, G, S]."""
        b, queries, k, g, _ = query.shape
        shape, keep = (b, k, queries, g, key.shape[-2]), 1.0 - self.dropout
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, shape)
        return kept.astype(jnp.float32) / keep

    def _out(self, y: jax.Array, width: int) -> jax.Array:
        """The last map: [B, L, H, head_dim] -> [B, L, width]."""
        names = ("heads", "head_dim", "embed")
        return Linear((width,), names, self.out_bias, self.dtype, self.out_init, name="out")(y)

    def _check(self, q: jax.Array, kv: jax.Array | None) -> None:
        width, kv_heads = q.shape[-1], self.kv_heads or self.heads
        if self.head_dim is None and width % self.heads:
            raise ValueError(f"width {width} is not a multiple of heads {self.heads}: change one.")
        if self.heads % kv_heads:
            raise ValueError(
                f"heads {self.heads} is not a multiple of kv_heads {kv_heads}: change one."
            )
        if kv is not None and not self.cross:
            raise ValueError("Self-attention was given a kv: set cross, or leave it out.")
        if self.cross and kv is None and not self.has_variable("cache", "key"):
            raise ValueError("Cross-attention needs a kv, or a cache that holds its keys.")

    def _dim(self, q: jax.Array) -> int:
        """Head dimension."""
        return self.head_dim or q.shape[-1] // self.heads

    def _project(
        self, x: jax.Array, name: str, dim: int, order: Callable | None = None
    ) -> jax.Array:
        """One of the maps to heads: [B, L, *heads, dim], or in the given order."""
        kv_heads = self.kv_heads or self.heads
        features, names = {
            "qkv": ((self.heads // kv_heads + 2, kv_heads, dim), ("qkv", "heads", "head_dim")),
            "query": ((self.heads, dim), ("heads", "head_dim")),
            "key_value": ((2, kv_heads, dim), ("qkv", "heads", "head_dim")),
        }[name]
        y = Linear(
            features,
            ("embed", *names),
            self.qkv_bias,
            self.dtype,
            self.qkv_init,
            order,
            unbiased=None if self.key_bias or name == "query" else features[0] - 2,
            name=name,
        )(x)
        return shard(y, "batch", "length", *(("heads",) if order else names))

    # ---- self-attention

    def _own(self, x, angles, slot):
        """Queries [B, L, K, G, D], and keys and values in the layout of the cache."""
        head_dim = self._dim(x)
        query, key, value = self._rotated(self._project(x, "qkv", head_dim), angles)
        key, value = (jnp.swapaxes(a, 1, 2) for a in (key, value))
        if self._keeps():
            key, value = (self._cached(n, a, slot) for n, a in (("key", key), ("value", value)))
        return jnp.swapaxes(query, 2, 3), key, value

    def _rotated(self, qkv, angles):
        """Queries [B, L, G, K, D], keys and values [B, L, K, D]; queries and keys rotated."""
        queries_key, value = qkv[:, :, :-1], qkv[:, :, -1]
        if angles is not None:
            queries_key = rotate(queries_key, angles, self.rotary_magnitude)
        return queries_key[:, :, :-1], queries_key[:, :, -1], value

    def _keeps(self) -> bool:
        """Whether keys and values are cached: not in the encoder of a model that decodes."""
        made = self.has_variable("cache", "key")
        return is_decoding(self) and (self.cache_length > 0 or made)

    def _cached(self, name: str, new: jax.Array, slot: jax.Array | None) -> jax.Array:
        """Put `new` [B, K, L, D] into the cache; returns what to attend to (at first only `new`).

        On CPU rows and heads are one axis: XLA merges them for its products, and would write a
        cache with two axes twice, copying the whole cache each time.
        """
        if platform.current().cache_merges_rows_and_heads:
            new = rearrange(new, "b k l d -> (b k) l d")
        if slot is None:
            room = (0, self.cache_length - new.shape[-2])
            cache = jnp.pad(new, (*((0, 0),) * (new.ndim - 2), room, (0, 0)))
        else:
            cache = self.get_variable("cache", name)
            cache = jax.lax.dynamic_update_slice_in_dim(cache, new, slot, new.ndim - 2)
        self.put_variable("cache", name, cache)
        return new if slot is None else cache

    def _visible(self, mask, queries: int, keys: int, slot) -> jax.Array | None:
        """Attention mask from mask and causality, [B or 1, 1, L or 1, 1, S]; None: all valid."""
        visible = None
        if mask is not None:
            mask = mask[:, None] if mask.ndim == 2 else mask
            visible = mask[:, None, :, None]
        if self.causal and not self.cross:
            first = 0 if slot is None else slot
            past = jnp.arange(keys)[None] <= first + jnp.arange(queries)[:, None]
            past = past[None, None, :, None]
            visible = past if visible is None else visible & past
        return visible

    # ---- as one kernel

    @property
    def _is_plain(self) -> bool:
        """Whether the weights are softmax(query · key / sqrt(D)), as in the faster programs."""
        return self.scale is None and self.logit_cap is None

    def _is_fused(self, q, kv, mask, bias) -> bool:
        """Whether the TPU kernel takes this call."""
        if not (platform.current().fused_attention and self._is_plain) or bias is not None:
            return False
        if self._keeps() or self.is_mutable_collection("intermediates") or self.dropout:
            return False
        if mask is not None and mask.ndim == 3 and mask.shape[1] > 1:
            return False  # a mask per query
        length, head_dim = q.shape[1], self._dim(q)
        if self.cross:
            if self.kv_heads not in (None, self.heads) or len(q) != len(kv):
                return False
            length = max(length, kv.shape[1])
        return fused.fits(len(q), length, self.heads, head_dim)

    def _fused(self, x, mask, angles):
        """[B, L, H, D] from the kernel, whose input has a key and a value next to each query."""
        head_dim, group = self._dim(x), self.heads // (self.kv_heads or self.heads)
        if angles is None and group == 1:
            qkv = self._project(x, "qkv", head_dim, fused.together)  # reorders the weights, not x
        else:
            query, *key_value = self._rotated(self._project(x, "qkv", head_dim), angles)
            query = rearrange(query, "b l g k d -> b l (k g) d")
            key_value = [repeat(a, "b l k d -> b l (k g) d", g=group) for a in key_value]
            qkv = fused.together(jnp.stack([query, *key_value], axis=2))
            qkv = shard(qkv, "batch", "length", "heads")
        qkv = checkpoint_name(qkv, "qkv")
        y = fused.fused_attention(qkv, head_dim, causal=self.causal, key_mask=_of_keys(mask))
        return checkpoint_name(y, "attention").reshape(*x.shape[:2], self.heads, head_dim)

    def _fused_cross(self, x, kv, mask):
        """[B, L, H, D] from the kernel."""
        head_dim, mask = self._dim(x), _of_keys(mask)
        query = self._project(x, "query", head_dim, lambda a: rearrange(a, "... h d -> ... (h d)"))
        key_value = self._project(kv, "key_value", head_dim, fused.together)
        query, key_value = checkpoint_name(query, "qkv"), checkpoint_name(key_value, "qkv")
        y = fused.fused_cross_attention(query, key_value, head_dim, key_mask=mask)
        if mask is not None:
            y = jnp.where(mask.any(-1)[:, None, None], y, jnp.zeros_like(y))
        return checkpoint_name(y, "attention").reshape(*x.shape[:2], self.heads, head_dim)

    # ---- cross-attention

    def _cross(self, x, kv):
        """Queries [B, L, K, G, D], and keys and values [B, K, S, D] of kv, or of the cache."""
        head_dim = self._dim(x)
        query = self._project(x, "query", head_dim)
        if self.has_variable("cache", "key"):
            key, value = (self.get_variable("cache", name) for name in ("key", "value"))
        else:
            key, value = rearrange(
                self._project(kv, "key_value", head_dim), "b s two k d -> two b k s d"
            )
        if self._keeps():
            self.put_variable("cache", "key", key)
            self.put_variable("cache", "value", value)
        # With beams, the rows of q that share a row of kv become more queries of that row.
        query = query.reshape(key.shape[0], -1, *query.shape[2:])
        return rearrange(query, "b l (k g) d -> b l k g d", k=key.shape[1]), key, value


def _of_keys(mask: jax.Array | None) -> jax.Array | None:
    """[B, S] of a mask [B, S] or [B, 1, S]."""
    return mask[:, 0] if mask is not None and mask.ndim == 3 else mask
