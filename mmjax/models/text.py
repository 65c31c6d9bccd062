"""Text transformer: from tokens to one vector."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch
from mmjax.layers.norm import LayerNorm
from mmjax.layers.parameters import param
from mmjax.layers.pooling import check_pool
from mmjax.layers.position import LearnedSequence
from mmjax.layers.precision import activation_dtype
from mmjax.layers.sizes import decode_text_variant, resolve
from mmjax.layers.token_embed import look_up
from mmjax.models.tower import Tower, pool_and_norm, tower_blocks
from mmjax.sharding import shard


class TextTransformer(Tower, kw_only=True):
    """batch["text"] [B, L] int32, batch["text_mask"] [B, L] bool -> text_features [B, width],
    and with `tokens` text_tokens [B, L, width], after the final norm.

    Attributes:
      variant: "B"; for it and what is not named here see `Tower`.
      length: maximum tokens of a text.
      causal: causal self-attention.
      mask_padding: mask padding in attention. Without it padding is attended to like any token, as
        in SigLIP and in the causal CLIP (where padding comes after the end token).
      pool: "end" (the last token that is not padding), "last", "mean" (over tokens that are not
        padding) or "map" (attention with a learned query).

    Source: Radford et al. 2021 (arXiv 2103.00020), section 2.4.
    """

    vocab_size: int
    length: int
    causal: bool = True
    mask_padding: bool = False
    pool: str = "end"
    tokens: bool = False

    @property
    def sizes(self) -> dict[str, int]:
        """width, depth, heads and mlp_dim, from the variant and the fields."""
        names = ("width", "depth", "heads", "mlp_dim")
        decoded = decode_text_variant(self.variant) if self.variant else {}
        return resolve(decoded, {n: getattr(self, n) for n in names}, "config.model.text")

    @property
    def reads_padding(self) -> bool:
        """Whether a text's vector depends on its padding; if not, shorter arrays give the same."""
        return self.pool == "last" or not (self.causal or self.mask_padding)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        width, stream = self.sizes["width"], activation_dtype(self.dtype)
        check_pool(self.pool, "config.model.text.pool", ("end", "last", "mean", "map"))
        text = batch["text"]
        mask = batch.get("text_mask")

        table = param(
            self,
            "embedding",
            nn.initializers.normal(0.02),
            (self.vocab_size, width),
            ("vocab", "embed"),
        )
        position = LearnedSequence(self.length, width, name="position")(text.shape[1])
        x = look_up(table, text, self.dtype) + position.astype(stream)[None]
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = shard(x, "batch", "length", "act_embed")

        blocks = tower_blocks(self, causal=self.causal)
        x = blocks(x, mask if self.mask_padding else None, train=train)

        norm = LayerNorm(self.norm_epsilon, self.dtype, name="norm")
        pooled = pool_and_norm(self, norm, x, mask)
        tokens = {"text_tokens": norm(x)} if self.tokens else {}
        return {"text_features": pooled.astype(jnp.float32), **tokens}
