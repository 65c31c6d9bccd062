"""FLAVA's text encoder and multimodal encoder: pre-norm blocks over embedded tokens."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.bert_embed import BertEmbed
from mmjax.layers.parameters import param
from mmjax.layers.precision import activation_dtype
from mmjax.layers.transformer import Transformer
from mmjax.sharding import shard


class TextEncoder(nn.Module):
    """BERT's embeddings and pre-norm blocks: text [B, L], mask [B, L] -> [B, L, width].

    The result is not normalized.

    Attributes:
      length: maximum tokens of a text; segments: number of segment embeddings.
      mask_id: id of the mask token; None: the last of the vocabulary.

    Source: Singh et al. 2022 (arXiv 2112.04482), section 3.1.
    """

    vocab_size: int
    width: int
    depth: int
    heads: int
    mlp_dim: int
    length: int
    segments: int = 2
    mask_id: int | None = None
    qkv_bias: bool = True
    norm_epsilon: float = 1e-12
    activation: str = "gelu"
    dropout: float = 0.0
    remat: str = "none"
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        text: jax.Array,
        mask: jax.Array | None,
        segment: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array:
        embed = BertEmbed(
            self.vocab_size,
            self.width,
            self.length,
            self.segments,
            epsilon=self.norm_epsilon,
            dropout=self.dropout,
            dtype=self.dtype,
        )
        nn.share_scope(self, embed)  # its tables are parameters of the encoder
        return _blocks(self)(embed(text, segment, train=train), mask, train=train)


class MultimodalEncoder(nn.Module):
    """Image and text tokens [B, S, width] -> [B, 1 + S, width] with a class token, not normalized.

    Attributes:
      class_token: put a class token first; otherwise the first token is the image's.

    Source: Singh et al. 2022 (arXiv 2112.04482), section 3.1.
    """

    width: int
    depth: int
    heads: int
    mlp_dim: int
    class_token: bool = True
    qkv_bias: bool = True
    norm_epsilon: float = 1e-12
    activation: str = "gelu"
    dropout: float = 0.0
    remat: str = "none"
    dtype: str = "float32"

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
        return _blocks(self)(x, mask, train=train)


def _blocks(encoder: TextEncoder | MultimodalEncoder) -> Transformer:
    return Transformer(
        encoder.depth,
        encoder.heads,
        encoder.mlp_dim,
        activation=encoder.activation,
        dropout=encoder.dropout,
        remat=encoder.remat,
        epsilon=encoder.norm_epsilon,
        dtype=encoder.dtype,
        qkv_bias=encoder.qkv_bias,
        name="transformer",
    )
