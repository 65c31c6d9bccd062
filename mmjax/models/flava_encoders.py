"""FLAVA's text encoder and multimodal encoder: pre-norm blocks over embedded tokens."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.parameters import param
from mmjax.layers.precision import activation_dtype
from mmjax.models.encoder import BertEncoder, Encoder
from mmjax.sharding import shard


class TextEncoder(BertEncoder):
    """BERT's embeddings and pre-norm blocks: text [B, L], mask [B, L] -> [B, L, width].

    The result is not normalized.

    Attributes: those of `BertEncoder`, and
      segments: number of segment embeddings.
      mask_id: id of the mask token; None: the last of the vocabulary.

    Source: Singh et al. 2022 (arXiv 2112.04482), section 3.1.
    """

    segments: int = 2
    mask_id: int | None = None
    qkv_bias: bool = True

    @nn.compact
    def __call__(
        self,
        text: jax.Array,
        mask: jax.Array | None,
        segment: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array:
        embed = self.embeddings(self.segments)
        nn.share_scope(self, embed)  # its tables are parameters of the encoder
        blocks = self.blocks(self.depth, "transformer", qkv_bias=self.qkv_bias)
        return blocks(embed(text, segment, train=train), mask, train=train)


class MultimodalEncoder(Encoder):
    """Image and text tokens [B, S, width] -> [B, 1 + S, width] with a class token, not normalized.

    Attributes: those of `Encoder`, and
      class_token: put a class token first; otherwise the first token is the image's.

    Source: Singh et al. 2022 (arXiv 2112.04482), section 3.1.
    """

    class_token: bool = True
    qkv_bias: bool = True

    @nn.compact
    def __call__(
        self, image: jax.Array, text: jax.Array, mask: jax.Array | None, *, train: bool = False
    ) -> jax.Array:
        """`mask`: [B, S] bool, true on valid tokens of the image and the text; None: all are."""
        parts = [image, text]
        if self.class_token:
            init = nn.initializers.normal(0.02)
            token = param(self, "class_token", init, (self.width,), ("embed",))
            token = token.astype(activation_dtype(self.dtype))[None, None]
            parts.insert(0, jnp.broadcast_to(token, (len(image), 1, self.width)))
        x = shard(jnp.concatenate(parts, axis=1), "batch", "length", "act_embed")
        if mask is not None:
            first = jnp.ones((len(mask), int(self.class_token)), bool)
            mask = jnp.concatenate([first, mask], axis=1)
        blocks = self.blocks(self.depth, "transformer", qkv_bias=self.qkv_bias)
        return blocks(x, mask, train=train)
