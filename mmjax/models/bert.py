"""BERT-style bidirectional text encoders: from tokens to one vector."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch
from mmjax.layers.linear import Linear
from mmjax.layers.pooling import check_pool, pool_tokens
from mmjax.models.encoder import BertEncoder

DENSE = {"identity": lambda x: x, "relu": nn.relu, "sigmoid": nn.sigmoid, "tanh": jnp.tanh}
POOLS = ("cls", "end", "max", "mean", "mean_sqrt", "pooler", "weighted_mean")


class BERT(BertEncoder):
    """batch["text"] [B, L] int32, batch["text_mask"] [B, L] bool -> text_features [B, width].

    Also gives text_tokens [B, L, width]. A batch may have `text_segment` [B, L] int32, the sentence
    of a pair that each token belongs to; by default all belong to the first.

    Attributes: those of `BertEncoder`, and
      segments: number of segment embeddings.
      pool: "cls" (the first token), "pooler", or over tokens that are not padding: "mean",
        "mean_sqrt", "weighted_mean", "max" or "end"; see `pool_tokens`.
      pooler: add a map of the first token, tanh(W x + b), which gives text_pooled [B, width].
      dense: linear maps after the pooling, each (width, activation, has a bias).
      position_pad: see `BertEmbed`.

    Raises:
      ValueError: inconsistent settings, or a text that is too long.

    Source: BERT, Devlin et al. 2019 (arXiv 1810.04805), section 3; RoBERTa, Liu et al. 2019
    (arXiv 1907.11692), its positions as in fairseq's utils.make_positions; pooling as in
    Sentence-BERT, Reimers and Gurevych 2019 (arXiv 1908.10084), section 3, and its library.
    """

    segments: int = 2
    pool: str = "pooler"
    pooler: bool = True
    dense: Sequence[tuple[int, str, bool]] = ()
    position_pad: int | None = None

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        check_pool(self.pool, "config.model.text.pool", POOLS)
        if self.pool == "pooler" and not self.pooler:
            raise ValueError("config.model.text.pool 'pooler' needs pooler=True: set one of them.")
        for _, activation, _ in self.dense:
            if activation not in DENSE:
                raise ValueError(
                    f"config.model.text.dense has '{activation}'; use one of {sorted(DENSE)}."
                )
        text, mask = batch["text"], batch.get("text_mask")
        embed = self.embeddings(self.segments, position_pad=self.position_pad)
        nn.share_scope(self, embed)  # its tables are parameters of the encoder
        x = embed(text, batch.get("text_segment"), train=train)
        x = self.blocks(self.depth, "encoder", norm="post")(x, mask, train=train)

        # ---- one vector
        outputs, init = {"text_tokens": x}, nn.initializers.normal(0.02)
        if self.pooler:
            first = pool_tokens(x, "cls").astype(jnp.float32)
            names = ("embed", None)
            pooled = jnp.tanh(Linear((self.width,), names, kernel_init=init, name="pooler")(first))
            outputs["text_pooled"] = pooled
        features = pooled if self.pool == "pooler" else pool_tokens(x, self.pool, mask)
        features = features.astype(jnp.float32)
        for i, (width, activation, bias) in enumerate(self.dense):
            maps = Linear((width,), ("embed", None), bias, kernel_init=init, name=f"dense_{i}")
            features = DENSE[activation](maps(features))
        return outputs | {"text_features": features}
