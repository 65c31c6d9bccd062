"""A BERT in two parts: a text encoder, and a fusion encoder that also attends to an image."""

import jax

from mmjax.layers.bert_embed import WordHead
from mmjax.models.encoder import BertEncoder


class GroundedText(BertEncoder, kw_only=True):
    """BERT's first layers encode a text alone, its last ones together with an image.

    Attributes: those of `BertEncoder`, and
      fusion_depth: layers of the second part, of `depth` of both.
      segments: rows of the segment table, of which the first is used; 0: no table.
      mask_token: id of the token in place of masked ones; None: no head that predicts words.

    Raises:
      ValueError: a part without layers, or a mask token outside the vocabulary.

    Source: ALBEF, Li et al. 2021 (arXiv 2107.07651), section 3.1; salesforce/ALBEF,
    models/xbert.py.
    """

    fusion_depth: int
    segments: int = 2
    mask_token: int | None = None

    def check(self) -> None:
        """Raise ValueError for inconsistent settings."""
        if not 0 < self.fusion_depth < self.depth:
            raise ValueError(
                f"config.model.text.fusion_depth is {self.fusion_depth} of {self.depth} layers: "
                "leave each part at least one."
            )
        if self.mask_token is not None and not 0 <= self.mask_token < self.vocab_size:
            raise ValueError(
                f"config.model.text.mask_token is {self.mask_token} and the vocabulary "
                f"{self.vocab_size}: give the id of a token in the vocabulary."
            )

    def setup(self):
        self.check()
        self.embed = self.embeddings(self.segments)
        self.encoder = self.blocks(self.depth - self.fusion_depth, norm="post")
        self.fusion = self.blocks(self.fusion_depth, norm="post", cross="between")
        if self.mask_token is not None:
            sizes = {"vocab_size": self.vocab_size, "epsilon": self.norm_epsilon}
            self.word_head = WordHead(activation=self.activation, dtype=self.dtype, **sizes)

    def encode(self, text: jax.Array, mask: jax.Array | None, train: bool) -> jax.Array:
        """[B, L] int32 -> [B, L, width], without an image.

        Args:
          mask: [B, L] bool, true on tokens.

        Raises:
          ValueError: a text that is too long.
        """
        return self.encoder(self.embed(text, train=train), mask, train=train)

    def fuse(
        self, x: jax.Array, mask: jax.Array | None, image: jax.Array, train: bool
    ) -> jax.Array:
        """Encoded texts [B * n, L, width] and images [B, S, C] -> [B * n, L, width].

        n consecutive texts are fused with the same image, whose keys and values they share.
        """
        return self.fusion(x, mask, context=image, train=train)

    def words(self, x: jax.Array) -> jax.Array:
        """Fused texts [..., width] -> logits of words [..., vocab_size] float32."""
        return self.word_head(x, self.embed.embedding)
