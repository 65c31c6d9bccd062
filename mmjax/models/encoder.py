"""Transformer encoders: the fields that they have in common, and their embeddings and blocks."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from mmjax.layers.bert_embed import BertEmbed
from mmjax.layers.transformer import Transformer


class HasBlocks(nn.Module):
    """A module with blocks, whose `sizes` are its width, depth, heads and mlp_dim.

    Attributes:
      remat: see `Transformer`.
    """

    norm_epsilon: float = 1e-6
    activation: str = "gelu"
    dropout: float = 0.0
    remat: str = "none"
    dtype: str = "float32"

    def blocks(
        self,
        depth: int,
        name: str | None = None,
        kind: Callable[..., Transformer] = Transformer,
        **settings: Any,
    ) -> Transformer:
        """`depth` blocks, with further `settings` of `Transformer`."""
        return kind(
            depth=depth,
            heads=self.sizes["heads"],
            mlp_dim=self.sizes["mlp_dim"],
            activation=self.activation,
            dropout=self.dropout,
            remat=self.remat,
            epsilon=self.norm_epsilon,
            dtype=self.dtype,
            name=name,
            **settings,
        )


class Encoder(HasBlocks, kw_only=True):
    """A transformer of given sizes."""

    width: int
    depth: int
    heads: int
    mlp_dim: int
    norm_epsilon: float = 1e-12

    @property
    def sizes(self) -> dict[str, int]:
        """width, depth, heads and mlp_dim."""
        return {name: getattr(self, name) for name in ("width", "depth", "heads", "mlp_dim")}


class BertEncoder(Encoder, kw_only=True):
    """A transformer over the tokens of a text.

    Attributes:
      length: maximum tokens of a text.
    """

    vocab_size: int
    length: int

    def embeddings(self, segments: int, **settings: Any) -> BertEmbed:
        """Tables of words, positions and `segments`, with further `settings` of `BertEmbed`."""
        return BertEmbed(
            self.vocab_size,
            self.width,
            self.length,
            segments,
            epsilon=self.norm_epsilon,
            dropout=self.dropout,
            dtype=self.dtype,
            **settings,
        )
