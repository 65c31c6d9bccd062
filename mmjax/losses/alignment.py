"""Losses that bring the embeddings of two modalities together without contrast."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mmjax.losses.optimal_transport import transport_distance


def modality_loss(
    image_logit: Float[ArrayLike, " b"], text_logit: Float[ArrayLike, " b"]
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Cross-entropy of a discriminator of modalities, per pair, and the fraction that is right.

    Args:
      image_logit, text_logit: [B], the logit that the embedding is an image's; 0 counts as wrong.

    Source: the domain classifier of Ganin and Lempitsky 2015 (arXiv 1409.7495), section 3.
    """
    loss = (jax.nn.softplus(-image_logit) + jax.nn.softplus(text_logit)) / 2
    right = jnp.where(image_logit > 0, 0.5, 0.0) + jnp.where(text_logit < 0, 0.5, 0.0)
    return loss, right


def batch_transport(
    x: Float[ArrayLike, "n d"], y: Float[ArrayLike, "m d"], beta: float, steps: int
) -> Float[Array, ""]:
    """Cost of the optimal transport between two sets, 1 - cosine; which are pairs is not used.

    See `transport_distance`. The pairs that are transported may be others in every batch.
    """
    masks = (jnp.ones((1, len(z)), bool) for z in (x, y))
    return transport_distance(jnp.asarray(x)[None], jnp.asarray(y)[None], *masks, beta, steps)[0]


def centroid_distance(x: Float[ArrayLike, "n d"], y: Float[ArrayLike, "m d"]) -> Float[Array, ""]:
    """Squared distance of the means of two sets: the square of the modality gap of a batch.

    Source of the gap: Liang et al. 2022 (arXiv 2203.02053), section 2.
    """
    return jnp.square(jnp.mean(x, 0) - jnp.mean(y, 0)).sum()
