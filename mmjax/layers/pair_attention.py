"""Cross-attention to two contexts at once, such as a pair of images."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.attention import Attention
from mmjax.layers.block import Block
from mmjax.layers.linear import Linear


class PairAttention(Attention):
    """Attention of q [B, L, D] to each of two contexts, kv [B, 2, S, C]: -> [B, L, D].

    Each context has an `Attention` of its own, `first` and `second`.

    Attributes:
      merge: both results, concatenated, pass a linear map; otherwise they are averaged.

    Source: BLIP, Li et al. 2022 (arXiv 2201.12086), figure 5; salesforce/BLIP,
    models/nlvr_encoder.py.
    """

    merge: bool = False

    @nn.compact
    def __call__(self, q: jax.Array, kv: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """`mask`: [B, 2, S] bool, true on what may be attended to."""
        names = [f.name for f in dataclasses.fields(Attention) if f.name not in ("parent", "name")]
        fields = {name: getattr(self, name) for name in names}
        both = [
            Attention(**fields, name=name)(q, kv[:, i], mask=None if mask is None else mask[:, i])
            for i, name in enumerate(("first", "second"))
        ]
        if not self.merge:
            return (both[0] + both[1]) / 2
        width = q.shape[-1]
        merge = Linear((width,), ("embed", None), True, self.dtype, self.out_init, name="merge")
        return merge(jnp.concatenate(both, -1))


class PairBlock(Block):
    """A block whose cross-attention is a `PairAttention`; see there for `merge`."""

    merge: bool = False

    def _attention(self, x: jax.Array, cross: bool = False) -> Attention:
        kind = functools.partial(PairAttention, merge=self.merge) if cross else Attention
        return super()._attention(x, cross, kind)
