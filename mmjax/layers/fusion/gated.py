"""Gated fusion: gates computed from the input weight the modalities."""

from collections.abc import Mapping

import jax.numpy as jnp

from mmjax.layers.fusion.streams import Fused, Fusion, Stream, masked_softmax, presence
from mmjax.layers.linear import Linear


class Gated(Fusion):
    """h_m = tanh(W_m x_m), gates = softmax over the modalities of V [x; present], Σ gates · h.

    A transformer per modality gives x_m, the mean of its tokens. There is one gate per feature;
    the gates of a missing modality are 0. Sows them as `gates` [B, M, D] where `intermediates` is
    mutable.

    Source: the gated multimodal unit, Arevalo et al. 2017 (arXiv 1702.01992), section 3.1; its
    sigmoid is this softmax for two modalities. Presence as an input of the gates is an addition.
    """

    def fuse(self, streams: Mapping[str, Stream], train: bool) -> Fused:
        tokens, pooled = self.own_transformers(streams, train)
        present = presence(streams)
        batch, count, width = pooled.shape
        hidden = [
            Linear((width,), ("embed", "act_embed"), dtype=self.dtype, name=f"{m}_hidden")(
                pooled[:, i]
            )
            for i, m in enumerate(streams)
        ]
        inputs = jnp.concatenate(
            [pooled.reshape(batch, count * width), present.astype(pooled.dtype)], axis=1
        )
        # The inputs' width, M · D + M, is divisible by no mesh axis: it is not sharded.
        logits = Linear((count, width), (None, None, "embed"), dtype=self.dtype, name="gate")(
            inputs
        )
        gates = masked_softmax(logits, present)
        if self.is_mutable_collection("intermediates"):
            self.sow("intermediates", "gates", gates)
        hidden = jnp.tanh(jnp.stack(hidden, axis=1))
        return Fused((gates.astype(hidden.dtype) * hidden).sum(axis=1), tokens)
