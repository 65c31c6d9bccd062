"""A text encoder that attends to an image, and the parameters that a decoder shares with it."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from mmjax.models.encoder import BertEncoder


class GroundedEncoder(BertEncoder):
    """BERT's encoder with cross-attention in each layer: text [B, L] -> [B, L, width].

    Without a context the cross-attention is skipped.

    Raises:
      ValueError: a text longer than `length`.

    Source: Li et al. 2022 (arXiv 2201.12086), section 3.1.
    """

    @nn.compact
    def __call__(
        self,
        text: jax.Array,
        mask: jax.Array,
        *,
        context: jax.Array | None = None,
        context_mask: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """`context`: [B, S, C]; the masks are [B, L] and [B, S] bool."""
        embed = self.embeddings(segments=0)
        nn.share_scope(self, embed)  # its tables are parameters of the encoder
        blocks = self.blocks(self.depth, "encoder", norm="post", cross="between")
        x = embed(text, train=train)
        return blocks(x, mask, context=context, context_mask=context_mask, train=train)


def with_shared(own: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The decoder's parameters, completed by those that it shares with the encoder."""
    layers, stack = theirs["encoder"]["layers"], dict(own["decoder"]["stack"])
    stack["layers"] = {name: layers[name] for name in ("mlp", "norm_mlp")} | dict(stack["layers"])
    decoder = {
        "position": theirs["position"],
        "norm_embedding": theirs["norm_embedding"],
        "stack": stack | {"cross": layers["cross"]},
    }
    return {**own, "embed": {"embedding": theirs["embedding"]}, "decoder": decoder}


def without_shared(whole: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `with_shared`."""
    layers = whole["decoder"]["stack"]["layers"]
    own = {name: layers[name] for name in ("attention", "norm_attention")}
    return {"head": whole["head"], "decoder": {"stack": {"layers": own}}}
