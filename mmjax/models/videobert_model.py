"""One transformer over a text and the tokens of a video: VideoBERT."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.layers.bert_embed import BertEmbed, WordHead
from mmjax.layers.linear import Linear
from mmjax.layers.transformer import Transformer


class Sequence(NamedTuple):
    """What the transformer reads, [B, S] each: ids, validity, segment (0 text, 1 video), place."""

    ids: jax.Array
    mask: jax.Array
    segment: jax.Array
    position: jax.Array


class VideoBERT(nn.Module):
    """batch["text"] [B, L] and ["video_tokens"] [B, T] int32, with masks -> predictions of both.

    The sequence is `[CLS] text [>] video [SEP]`: the text's own end token, the last that is valid,
    becomes the separator. Without video it is `[CLS] text [SEP]`, without text `[CLS] [>] video
    [SEP]`. Positions count the tokens that are there. A modality is missing where its mask has no
    valid token, `text_present` is false, or `text_used` or `video_used` [B] is (of a regime of
    training).

    Gives `text_prediction` [B, L, V] and `video_prediction` [B, T, C], logits over the words and
    over the video tokens, from one table of both, and `match_logits` [B, 2]. Of the text's tokens
    the model reads `text_corrupted`, of the video's `video_corrupted` (with C for a masked one),
    where the batch has them.

    Attributes:
      text: fields of `BertEmbed` and of the transformer: vocab_size, width, depth, heads, mlp_dim,
        length (L, with [CLS] and the end token), activation, dropout.
      codes: C, the number of video tokens.
      frames: T, the most video tokens of a sequence.
      start, end, separator, mask: ids of [CLS], [SEP], [>] and [MASK] in the text's vocabulary.

    Source: Sun et al. 2019 (arXiv 1904.01766), sections 3 and 4.
    """

    text: Mapping[str, Any]
    codes: int
    frames: int
    start: int
    end: int
    separator: int
    mask: int
    remat: str = "none"
    dtype: str = "float32"

    def text_fields(self, parent: Any = None) -> dict[str, Any]:
        """The fields of `text`, checked."""
        del parent
        return check_kwargs(_fields, self.text, "config.model.text")

    def check(self) -> None:
        """Raise ValueError for ids that are not in the vocabulary."""
        size = self.text_fields()["vocab_size"]
        for name in ("start", "end", "separator", "mask"):
            if not 0 <= getattr(self, name) < size:
                raise ValueError(
                    f"config.model.{name} is {getattr(self, name)}: set it to the id of that token "
                    f"in the text's vocabulary, 0 to {size - 1}."
                )

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        fields = _fields(**self.text_fields())
        words, length, frames = fields["vocab_size"], fields["length"], self.frames
        found = self.sequence(batch)
        embed = BertEmbed(
            words + self.codes,
            fields["width"],
            length + frames + 1,
            epsilon=fields["norm_epsilon"],
            dropout=fields["dropout"],
            dtype=self.dtype,
            name="embed",
        )
        x = embed(found.ids, found.segment, positions=found.position, train=train)
        x = Transformer(
            depth=fields["depth"],
            heads=fields["heads"],
            mlp_dim=fields["mlp_dim"],
            norm="post",
            activation=fields["activation"],
            dropout=fields["dropout"],
            remat=self.remat,
            epsilon=fields["norm_epsilon"],
            dtype=self.dtype,
            name="encoder",
        )(x, found.mask, train=train)
        head = WordHead(
            words + self.codes, epsilon=fields["norm_epsilon"], dtype=self.dtype, name="head"
        )
        logits = head(x[:, : length + frames], embed.embedding)
        init = nn.initializers.normal(0.02)
        first = x[:, 0].astype(jnp.float32)
        pooled = jnp.tanh(
            Linear((fields["width"],), ("embed", None), kernel_init=init, name="pooler")(first)
        )
        match = Linear((2,), ("embed", "classes"), kernel_init=init, name="match")(pooled)
        return {
            "text_prediction": logits[:, :length, :words],
            "video_prediction": logits[:, length:, words:],
            "match_logits": match,
        }

    def sequence(self, batch: Batch) -> Sequence:
        """The sequence of a batch, of S = L + T + 1 places, some of which are not valid."""
        words = self.text_fields()["vocab_size"]
        text = batch.get("text_corrupted", batch["text"])
        video = batch.get("video_corrupted", batch["video_tokens"])
        has_text, has_video = present(batch)
        video_mask = batch["video_tokens_mask"] & has_video[:, None]
        count = jnp.where(has_text, batch["text_mask"].sum(1, dtype=jnp.int32) - 1, 1)[:, None]
        shown = video_mask.sum(1, dtype=jnp.int32)[:, None]
        place = jnp.arange(text.shape[1], dtype=jnp.int32)[None]
        closing = jnp.where(has_video, self.separator, self.end).astype(jnp.int32)[:, None]
        ids = jnp.where(place == 0, self.start, jnp.where(place == count, closing, text))
        codes = jnp.where(video == self.codes, self.mask, video + words)
        last = jnp.full_like(count, self.end)
        after = count + 1 + jnp.arange(video.shape[1], dtype=jnp.int32)[None]
        zeros, ones = jnp.zeros_like, jnp.ones_like
        end = jnp.where(has_video[:, None], count + 1 + shown, 0)
        everywhere = jnp.broadcast_to(place, text.shape)
        return Sequence(
            jnp.concatenate([ids, codes, last], axis=1).astype(jnp.int32),
            jnp.concatenate([place <= count, video_mask, has_video[:, None]], axis=1),
            jnp.concatenate([zeros(text), ones(video), ones(last)], axis=1).astype(jnp.int32),
            jnp.concatenate([everywhere, after, end], axis=1),
        )


def present(batch: Batch) -> tuple[jax.Array, jax.Array]:
    """[B] bool each: which rows have a text, and which have a video."""
    text, video = batch["text_mask"].any(1), batch["video_tokens_mask"].any(1)
    if "text_present" in batch:
        text = text & batch["text_present"]
    return (
        text & batch["text_used"] if "text_used" in batch else text,
        video & batch["video_used"] if "video_used" in batch else video,
    )


def _fields(
    vocab_size: int,
    width: int,
    depth: int,
    heads: int,
    mlp_dim: int,
    length: int,
    activation: str = "gelu",
    dropout: float = 0.0,
    norm_epsilon: float = 1e-12,
) -> dict[str, Any]:
    """The fields of `text`, with defaults."""
    return locals()
