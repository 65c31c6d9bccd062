"""Cross-attention: one sequence looks at another."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.attention import attention_weights
from mmjax.layers.linear import Linear
from mmjax.layers.precision import activation_dtype
from mmjax.sharding import shard


class CrossAttention(nn.Module):
    """Queries [B, Lq, D] look at a context [B, Lk, Dc]: -> [B, Lq, D].

    A query that may see nothing gets exactly zeros, whatever the context holds. Sows its weights
    [B, H, Lq, Lk] as `attention_weights` where `intermediates` is mutable.

    Attributes:
      head_dim: None is D / heads.

    Raises:
      ValueError: a width that is not a multiple of the heads, where head_dim is None.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2.3.
    """

    heads: int
    head_dim: int | None = None
    use_bias: bool = True
    dtype: str = "float32"
    qkv_init: Callable = nn.initializers.xavier_uniform()
    out_init: Callable = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(
        self, x: jax.Array, context: jax.Array, mask: jax.Array | None = None
    ) -> jax.Array:
        """`mask`: [B, Lk] bool, true where context may be seen; or [B, Lq, Lk], for each query."""
        width = x.shape[-1]
        if self.head_dim is None and width % self.heads:
            raise ValueError(f"width {width} is not a multiple of heads {self.heads}: change one.")
        split = (self.heads, self.head_dim or width // self.heads)
        names = ("heads", "head_dim")

        def project(x, name):
            features = Linear(
                split, ("embed", *names), self.use_bias, self.dtype, self.qkv_init, name=name
            )(x)
            return shard(features, "batch", "length", *names)

        query, key, value = project(x, "query"), project(context, "key"), project(context, "value")
        weights = attention_weights(query, key, key_mask=mask)
        sees = None
        if mask is not None:
            sees = mask.any(-1, keepdims=True)  # [B, 1] or [B, Lq, 1]
            sees = sees[:, None] if mask.ndim == 2 else sees
            weights = jnp.where(sees[:, None], weights, 0.0)
        if self.is_mutable_collection("intermediates"):
            self.sow("intermediates", "attention_weights", weights)
        y = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(activation_dtype(self.dtype)), value)
        y = Linear(
            (width,), (*names, "embed"), self.use_bias, self.dtype, self.out_init, name="out"
        )(y)
        return y if sees is None else jnp.where(sees, y, jnp.zeros_like(y))
