"""Decoders of a missing modality's features from those of the other modalities."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from mmjax.layers.activations import activation
from mmjax.layers.linear import Linear


@flax.struct.dataclass
class Reconstruction:
    """Features of M modalities decoded from the others.

    Fields:
      values: [B, M, D]; target: [B, M, D], the features themselves, a constant for gradients.
      made: [B, M] bool, whether any other modality was there to decode from.
      known: [B, M] bool, whether the target is known too.
    """

    values: jax.Array
    target: jax.Array
    made: jax.Array
    known: jax.Array


class Decoders(nn.Module):
    """A multilayer perceptron per modality: the other modalities' features -> its own.

    The features are constants for gradients: training fits the decoders to the encoders, not the
    encoders to the decoders. A modality that is not given counts as zeros, and each perceptron also
    reads which ones are given.

    Attributes:
      inner: width of the layer between.

    Source: missing features from those at hand, by a trained network, as in SMIL, Ma et al. 2021
    (arXiv 2103.05677), section 3, whose prior over clusters and Bayesian training are left out.
    """

    modalities: tuple[str, ...]
    inner: int
    activation: str = "gelu"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, pooled: jax.Array, present: jax.Array, given: jax.Array) -> Reconstruction:
        """
        Args:
          pooled: [B, M, D], features, of any value where not present.
          present: [B, M] bool, known to the loss; given: [B, M] bool, read by the decoders.
        """
        count, width = pooled.shape[1:]
        constant = jax.lax.stop_gradient(pooled)
        inputs = jnp.where(given[..., None], constant, 0)
        flags = jnp.broadcast_to(given[..., None], (*given.shape, 1)).astype(inputs.dtype)
        inputs = jnp.concatenate([inputs, flags], axis=-1)
        values = []
        for i, m in enumerate(self.modalities):
            others = jnp.delete(inputs, i, axis=1)
            # The input's last axis, D + 1, is divisible by no mesh axis: it is not sharded.
            names = (None, None, "mlp")
            h = Linear((self.inner,), names, dtype=self.dtype, name=f"{m}_up")(others)
            h = activation(self.activation)(h)
            values.append(Linear((width,), ("mlp", "embed"), dtype=self.dtype, name=m)(h))
        made = given.sum(axis=1, keepdims=True) > given.astype(jnp.int32)  # from any other
        target = jnp.where(present[..., None], constant, 0).astype(jnp.float32)
        return Reconstruction(jnp.stack(values, axis=1), target, made, made & present)
