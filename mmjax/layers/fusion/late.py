"""Late fusion: each modality predicts by itself, and the predictions are averaged."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from mmjax.layers.fusion.streams import Fused, Fusion, Stream, masked_softmax, presence
from mmjax.layers.linear import Linear
from mmjax.layers.parameters import param


class Late(Fusion):
    """A transformer and a linear map per modality; a weighted mean over those present.

    The head after it is linear too, so this is the weighted mean of the logits that each modality
    would give alone.

    Attributes:
      weights: "average", "learned" (a scalar per modality), or {modality: a positive number}; the
        weights of the present modalities are normalized to sum to 1.

    Raises:
      ValueError: other weights.
    """

    weights: str | Mapping[str, float] = "average"

    def fuse(self, streams: Mapping[str, Stream], train: bool) -> Fused:
        tokens, pooled = self.own_transformers(streams, train)
        width = pooled.shape[-1]
        projected = [
            Linear((width,), ("embed", "act_embed"), dtype=self.dtype, name=f"{m}_vote")(
                pooled[:, i]
            )
            for i, m in enumerate(streams)
        ]
        present = presence(streams)
        logits = jnp.broadcast_to(self._logits(tuple(streams))[None], present.shape)
        weights = masked_softmax(logits, present)
        projected = jnp.stack(projected, axis=1)
        return Fused(jnp.einsum("bm,bmd->bd", weights.astype(projected.dtype), projected), tokens)

    def _logits(self, modalities: tuple[str, ...]):
        if self.weights == "average":
            return jnp.zeros(len(modalities))
        if self.weights == "learned":
            zeros = nn.initializers.zeros
            scalars = [param(self, f"{m}_weight", zeros, (), ()) for m in modalities]
            return jnp.stack(scalars)
        given = {} if isinstance(self.weights, str) else dict(self.weights)
        if set(given) != set(modalities) or min(given.values()) <= 0:
            raise ValueError(
                f"weights of late fusion are {self.weights!r}: use 'average', 'learned', or a "
                f"positive number for each of {', '.join(modalities)}."
            )
        return jnp.log(jnp.asarray([given[m] for m in modalities], jnp.float32))
