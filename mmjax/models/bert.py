"""BERT-style bidirectional text encoders: from tokens to one vector."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch
from mmjax.layers.bert_embed import BertEmbed
from mmjax.layers.linear import Linear
from mmjax.layers.pooling import check_pool, pool_tokens
from mmjax.layers.transformer import Transformer

DENSE = {"identity": lambda x: x, "relu": nn.relu, "sigmoid": nn.sigmoid, "tanh": jnp.tanh}
POOLS = ("cls", "end", "max", "mean", "mean_sqrt", "pooler", "weighted_mean")


class BERT(nn.Module):
    """batch["text"] [B, L] int32, batch["text_mask"] [B, L] bool -> text_features [B, width].

    Also gives text_tokens [B, L, width]. A batch may have `text_segment` [B, L] int32, the sentence
    of a pair that each token belongs to; by default all belong to the first.

    Attributes:
      length: maximum tokens of a text.
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

    vocab_size: int
    width: int
    depth: int
    heads: int
    mlp_dim: int
    length: int
    segments: int = 2
    pool: str = "pooler"
    pooler: bool = True
    dense: Sequence[tuple[int, str, bool]] = ()
    position_pad: int | None = None
    norm_epsilon: float = 1e-12
    activation: str = "gelu"
    dropout: float = 0.0
    remat: str = "none"
    dtype: str = "float32"

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
        embed = BertEmbed(
            self.vocab_size,
            self.width,
            self.length,
            self.segments,
            self.position_pad,
            self.norm_epsilon,
            self.dropout,
            self.dtype,
        )
        nn.share_scope(self, embed)  # its tables are parameters of the encoder
        x = embed(text, batch.get("text_segment"), train=train)

        x = Transformer(
            depth=self.depth,
            heads=self.heads,
            mlp_dim=self.mlp_dim,
            norm="post",
            activation=self.activation,
            dropout=self.dropout,
            remat=self.remat,
            epsilon=self.norm_epsilon,
            dtype=self.dtype,
            name="encoder",
        )(x, mask, train=train)

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
