"""BERT's input and output: token embeddings with positions and segments, and the word head."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.activations import ACTIVATIONS
from mmjax.layers.linear import Linear
from mmjax.layers.norm import LayerNorm
from mmjax.layers.parameters import param
from mmjax.layers.position import LearnedSequence
from mmjax.layers.precision import activation_dtype
from mmjax.layers.token_embed import look_up, word_logits
from mmjax.sharding import shard


class BertEmbed(nn.Module):
    """Tokens [B, L] -> [B, L, width]: the sum of three learned tables, then a norm.

    Attributes:
      length: rows of the position table.
      segments: rows of the segment table; 0: no segments, as in BLIP.
      position_pad: padding id for RoBERTa's positions: padding has position position_pad, other
        tokens are counted from position_pad + 1. None: positions are 0, 1, 2, ...

    Raises:
      ValueError: a text longer than `length`.

    Source: BERT, Devlin et al. 2019 (arXiv 1810.04805), section 3; RoBERTa, Liu et al. 2019
    (arXiv 1907.11692), its positions as in fairseq's utils.make_positions.
    """

    vocab_size: int
    width: int
    length: int
    segments: int = 2
    position_pad: int | None = None
    epsilon: float = 1e-12
    dropout: float = 0.0
    dtype: str = "float32"

    def setup(self):
        init = nn.initializers.normal(0.02)
        words = (self.vocab_size, self.width)
        self.embedding = param(self, "embedding", init, words, ("vocab", "embed"))
        first = 0 if self.position_pad is None else self.position_pad + 1
        self.position = LearnedSequence(self.length + first, self.width)
        if self.segments:
            kinds = (self.segments, self.width)
            self.segment_embedding = param(self, "segment_embedding", init, kinds, (None, "embed"))
        self.norm_embedding = LayerNorm(self.epsilon, activation_dtype(self.dtype))
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self,
        text: jax.Array,
        segment: jax.Array | None = None,
        *,
        positions: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """The embedded tokens in the stream's dtype.

        Args:
          segment: [B, L] int32; None: every token belongs to the first segment.
          positions: [B, L] int32; None: counted from the start of the text.
        """
        if text.shape[1] > self.length:
            raise ValueError(
                f"Text of {text.shape[1]} tokens is longer than the model's {self.length}: set "
                "model.text.length and the length in tokenize() to the same value."
            )
        stream = activation_dtype(self.dtype)
        place = self._positions(text) if positions is None else self.position(positions)
        x = look_up(self.embedding, text, self.dtype) + place.astype(stream)
        if segment is not None:
            x = x + look_up(self.segment_embedding, segment, self.dtype)
        elif self.segments:
            x = x + self.segment_embedding[0].astype(stream)[None, None]
        x = self.drop(self.norm_embedding(x), deterministic=not train)
        return shard(x, "batch", "length", "act_embed")

    def _positions(self, text: jax.Array) -> jax.Array:
        """[1 or B, L, width] float32."""
        if self.position_pad is None:
            return self.position(text.shape[1])[None]
        counted = (text != self.position_pad).astype(jnp.int32)
        return self.position(jnp.cumsum(counted, axis=1) * counted + self.position_pad)


class WordHead(nn.Module):
    """[..., width] -> logits [..., vocab_size] float32: linear map, activation, norm, word table.

    Attributes:
      tied: the word table is that of the embedding, an argument; otherwise a parameter, `table`.

    Source: google-research/bert, run_pretraining.py, get_masked_lm_output.
    """

    vocab_size: int
    tied: bool = True
    activation: str = "gelu"
    epsilon: float = 1e-12
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, table: jax.Array | None = None) -> jax.Array:
        """`table`: [vocab_size, width], where it is tied."""
        width, init = x.shape[-1], nn.initializers.normal(0.02)
        maps = Linear((width,), ("embed", None), True, self.dtype, init, name="transform")
        x = ACTIVATIONS[self.activation](maps(x))
        x = LayerNorm(self.epsilon, self.dtype, name="norm")(x)
        if not self.tied:
            table = param(self, "table", init, (self.vocab_size, width), ("vocab", "embed"))
        bias = param(self, "bias", nn.initializers.zeros, (self.vocab_size,), ("vocab",))
        return word_logits(self, x, table) + bias.reshape((1,) * (x.ndim - 1) + (-1,))
