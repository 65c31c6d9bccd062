"""Late fusion: each modality predicts by itself, and the predictions are averaged."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.fusion.streams import Fused, Fusion, Stream, masked_softmax, presence
from mmjax.layers.linear import Linear
from mmjax.layers.parameters import param


class Late(Fusion):
    """A transformer and a linear map per modality; a weighted mean over those present.

    The head after it is linear too, so this is the weighted mean of the logits that each modality
    would give alone. Sows the weights as `weights` [B, M] where `intermediates` is mutable.

    Attributes:
      weights: "average", "learned" (a scalar per modality), "uncertainty" (1 / σ², whose logarithm
        each modality predicts of each example from its own features), or {modality: a positive
        number}; the weights of the present modalities are normalized to sum to 1.

    Source of "uncertainty": the mean of a product of Gaussian experts, from which missing ones are
    left out, Wu and Goodman 2018 (arXiv 1802.05335), section 2.2, with one variance per expert; its
    logarithm is predicted as in Kendall and Gal 2017 (arXiv 1703.04977), section 3.

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
        logits = self._logits(tuple(streams), pooled)
        weights = masked_softmax(jnp.broadcast_to(logits, present.shape), present)
        if self.is_mutable_collection("intermediates"):
            self.sow("intermediates", "weights", weights)
        projected = jnp.stack(projected, axis=1)
        return Fused(jnp.einsum("bm,bmd->bd", weights.astype(projected.dtype), projected), tokens)

    def _logits(self, modalities: tuple[str, ...], pooled: jax.Array) -> jax.Array:
        """Logarithms of the weights, [B, M] or [1, M]."""
        zeros = nn.initializers.zeros
        if self.weights == "average":
            return jnp.zeros((1, len(modalities)))
        if self.weights == "learned":
            scalars = [param(self, f"{m}_weight", zeros, (), ()) for m in modalities]
            return jnp.stack(scalars)[None]
        if self.weights == "uncertainty":
            log_variances = [
                Linear((1,), ("embed", None), kernel_init=zeros, name=f"{m}_log_variance")(x)
                for m, x in zip(modalities, jnp.unstack(pooled.astype(jnp.float32), axis=1))
            ]
            return -jnp.concatenate(log_variances, axis=1)
        given = {} if isinstance(self.weights, str) else dict(self.weights)
        if set(given) != set(modalities) or min(given.values()) <= 0:
            raise ValueError(
                f"weights of late fusion are {self.weights!r}: use 'average', 'learned', "
                f"'uncertainty', or a positive number for each of {', '.join(modalities)}."
            )
        return jnp.log(jnp.asarray([[given[m] for m in modalities]], jnp.float32))
