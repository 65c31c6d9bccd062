"""Losses of reconstructions: of the pixels of discrete autoencoders, and of features."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

# Pixels in 0 ... 1 are mapped to MARGIN ... 1 - MARGIN, where the density is defined
# (`logit_laplace_eps` of openai/DALL-E).
MARGIN = 0.1


def logit_laplace(
    pixels: Float[ArrayLike, "b h w c2"], target: Float[ArrayLike, "b h w c"]
) -> Float[Array, "b h w c"]:
    """-log p in nats of each channel of each pixel under the logit-Laplace distribution.

    Args:
      pixels: first the means, then the logarithms of the scales.
      target: in [0, 1]; the density is that of the mapped pixel, in [0.1, 0.9].

    Source: Ramesh et al. 2021 (arXiv 2102.12092), appendix A.3, equation 2.
    """
    mean, log_scale = jnp.split(pixels, 2, axis=-1)
    x = (1 - 2 * MARGIN) * target + MARGIN
    odds = jnp.log(x) - jnp.log1p(-x)
    density = jnp.log(2 * x * (1 - x)) + log_scale
    return density + jnp.abs(odds - mean) * jnp.exp(-log_scale)


def code_kl(logits: Float[ArrayLike, "b h w k"]) -> Float[Array, "b h w"]:
    """KL divergence in nats from softmax(logits) to the uniform distribution over the k codes."""
    log_p = jax.nn.log_softmax(logits, axis=-1)
    return (jnp.exp(log_p) * log_p).sum(-1) + jnp.log(float(logits.shape[-1]))


def feature_error(
    values: Float[ArrayLike, "*b d"], target: Float[ArrayLike, "*b d"]
) -> Float[Array, "*b"]:
    """Squared distance of features from their target, relative to the target's squared length.

    0 is perfect, 1 that of zeros: it does not depend on the scale of the features. The target is a
    constant for gradients.
    """
    target = jax.lax.stop_gradient(jnp.asarray(target, jnp.float32))
    squared = jnp.square(jnp.asarray(values) - target).sum(-1)
    return squared / jnp.maximum(jnp.square(target).sum(-1), 1e-6)
