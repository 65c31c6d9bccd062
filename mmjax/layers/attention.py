"""Multi-head attention with fp32 logits and softmax."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from mmjax.layers.fused_attention import fits, fused_attention, together
from mmjax.layers.linear import Linear
from mmjax.layers.precision import activation_dtype, on_tpu
from mmjax.sharding import shard

# Finite, so that a row with nothing to look at gives a mean and not a NaN.
MASKED = float(jnp.finfo(jnp.float32).min)


def attention_weights(
    query: jax.Array, key: jax.Array, *, causal: bool = False, key_mask: jax.Array | None = None
) -> jax.Array:
    """softmax(query · key / sqrt(D)) over the keys, in fp32.

    Args:
      query: [B, Lq, H, D]; key: [B, Lk, H, D].
      causal: a query sees the keys up to its own position.
      key_mask: [B, Lk] bool, true where a key may be seen; or [B, Lq, Lk], for each query its own.

    Returns:
      [B, H, Lq, Lk] float32.
    """
    # The queries are the smaller array to scale.
    query = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    seen = None
    if causal:
        seen = jnp.tril(jnp.ones((query.shape[1], key.shape[1]), bool))[None, None]
    if key_mask is not None:
        key_mask = key_mask[:, None, None, :] if key_mask.ndim == 2 else key_mask[:, None]
        seen = key_mask if seen is None else seen & key_mask
    if seen is not None:
        logits = jnp.where(seen, logits, MASKED)
    return jax.nn.softmax(logits, axis=-1)


class MultiHeadAttention(nn.Module):
    """Self-attention [B, L, D] -> [B, L, D], one fused projection for queries, keys and values.

    Sows its weights [B, H, Lq, Lk] as `attention_weights` where `intermediates` is mutable.
    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2.

    Raises:
      ValueError: a width that is not a multiple of the heads.
    """

    heads: int
    causal: bool = False
    dtype: str = "float32"
    qkv_init: Callable = nn.initializers.xavier_uniform()
    out_init: Callable = nn.initializers.xavier_uniform()
    qkv_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, key_mask: jax.Array | None = None) -> jax.Array:
        width = x.shape[-1]
        if width % self.heads:
            raise ValueError(f"width {width} is not a multiple of heads {self.heads}: change one.")
        head_dim, sows = width // self.heads, self.is_mutable_collection("intermediates")
        fused = on_tpu() and not sows and fits(*x.shape[:2], self.heads, head_dim)
        qkv = Linear(
            (3, self.heads, head_dim),
            ("embed", "qkv", "heads", "head_dim"),
            self.qkv_bias,
            self.dtype,
            kernel_init=self.qkv_init,
            order=together if fused else None,
            name="qkv",
        )(x)
        if fused:
            qkv = checkpoint_name(shard(qkv, "batch", "length", "heads"), "qkv")
            y = fused_attention(qkv, head_dim, causal=self.causal, key_mask=key_mask)
            y = checkpoint_name(y, "attention").reshape(*x.shape[:2], self.heads, head_dim)
        else:
            qkv = shard(qkv, "batch", "length", "qkv", "heads", "head_dim")
            query, key, value = (qkv[:, :, i] for i in range(3))
            weights = attention_weights(query, key, causal=self.causal, key_mask=key_mask)
            if sows:
                self.sow("intermediates", "attention_weights", weights)
            y = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(activation_dtype(self.dtype)), value)
        return Linear(
            (width,),
            ("heads", "head_dim", "embed"),
            dtype=self.dtype,
            kernel_init=self.out_init,
            name="out",
        )(y)
