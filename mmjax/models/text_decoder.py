"""From tokens to logits of the next token: the text side of all generative models."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.layers.attention import is_decoding
from mmjax.layers.bert_embed import WordHead
from mmjax.layers.decoder import Decoder
from mmjax.layers.inserted import insert
from mmjax.layers.pooling import pool_tokens
from mmjax.layers.token_embed import TokenEmbed
from mmjax.sharding import shard


class GeneratesText:
    """A generative model with a field `text`, as `make_text_decoder` takes it."""

    @property
    def window(self) -> int:
        """Maximum length of a text, prompt and continuation together."""
        return self.text["length"]


class TextDecoder(nn.Module):
    """Token embedding, a causal stack, and logits over the vocabulary.

    Attributes:
      length: maximum tokens of a text.
      decoder: fields of `Decoder`; it inherits length and dtype.
      tied: the logits use the embedding table.
      embed_scale: a factor of the embedded tokens, but not of inserted features (Gemma).
      logit_cap: a cap c of the logits, c · tanh(logits / c); None: none (Gemma 2).
      word_head: a map with an activation and a norm in front of the logits, and a bias on them, as
        in BERT; see `WordHead`.
    """

    vocab_size: int
    width: int
    length: int
    decoder: Mapping[str, Any]
    tied: bool = True
    word_head: bool = False
    embed_scale: float | None = None
    logit_cap: float | None = None
    dtype: str = "float32"

    def stack(self, **kwargs) -> Decoder:
        """The stack that `decoder` describes."""
        fields = {"length": self.length, "dtype": self.dtype, **self.decoder}
        return Decoder(**check_kwargs(Decoder, fields, "config.model.text.decoder"), **kwargs)

    @nn.compact
    def __call__(
        self,
        text: jax.Array,
        mask: jax.Array | None = None,
        *,
        context: jax.Array | None = None,
        context_mask: jax.Array | None = None,
        train: bool = False,
        cache_length: int = 0,
        head: bool = True,
        inserted: tuple[jax.Array, jax.Array] | None = None,
        packs: jax.Array | None = None,
        prefix: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """text [B, L] int32 -> `text_logits` [B, L, V] float32, of the next tokens.

        While decoding (see mmjax/layers/decoder.py), only `next_logits` [B, V], of the token after
        the last of each row. Without `head`, only `text_tokens` [B, L, width]. The other arguments
        are those of `Decoder`.

        Args:
          inserted: features [B, S, width] and places [B, L] bool of tokens whose embeddings they
            replace; see `insert`.

        Raises:
          ValueError: decoding without `head`.
        """
        if is_decoding(self) and not head:
            raise ValueError("A decoder without a head does not generate: config.model.head.")
        stack = self.stack(name="decoder")
        tied = self.tied or self.word_head  # whose table is its own where it is not tied
        embed = TokenEmbed(self.vocab_size, self.width, tied, self.dtype, name="embed")
        x = embed(text)
        if self.embed_scale is not None:
            x = x * jnp.asarray(self.embed_scale, x.dtype)
        if inserted is not None:
            x = shard(insert(x, *inserted), "batch", "length", "act_embed")
        x = stack(
            x,
            mask,
            context=context,
            context_mask=context_mask,
            packs=packs,
            prefix=prefix,
            train=train,
            cache_length=cache_length,
        )
        if not head:
            return {"text_tokens": x}
        decoding = is_decoding(self)
        x = pool_tokens(x, "end", mask) if decoding else x
        if self.word_head:
            head = (self.vocab_size, self.tied, stack.activation, stack.epsilon, self.dtype)
            logits = WordHead(*head, name="head")(x, embed.embedding)
        else:
            logits = embed.logits(x)
        if self.logit_cap is not None:
            logits = self.logit_cap * jnp.tanh(logits / self.logit_cap)
        return {"next_logits" if decoding else "text_logits": logits}


def make_text_decoder(
    fields: Mapping[str, Any], dtype: str, cross_every: int = 0, **kwargs
) -> TextDecoder:
    """A text decoder whose default cross_every is as given.

    Raises:
      ValueError: an unknown setting.
    """
    fields = {"dtype": dtype, **fields}
    fields["decoder"] = {"cross_every": cross_every, **fields.get("decoder", {})}
    return TextDecoder(**check_kwargs(TextDecoder, fields, "config.model.text"), **kwargs)


def decode_text(
    model: nn.Module,
    batch: Batch,
    context: jax.Array | None,
    context_mask: jax.Array | None,
    train: bool,
    cache_length: int,
) -> dict[str, jax.Array]:
    """What the model's `text_decoder` gives for the text of a batch, which attends to a context.

    Args:
      context: [B, S, C]; None: that of the cache; context_mask: [B, S] bool; None: all is valid.
      cache_length: see `Decoder`.
    """
    return model.text_decoder(name="text")(
        batch["text"],
        batch.get("text_mask"),
        context=context,
        context_mask=context_mask,
        train=train,
        cache_length=cache_length,
    )
