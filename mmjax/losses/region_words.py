"""Which words describe which regions of an image: the alignment of GLIP.

B images, P regions (predictions of a detector), Q phrases of L tokens.
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from mmjax.losses.focal import focal


def region_word_loss(
    word_logits: Float[ArrayLike, "b p q l"],
    phrase: Float[ArrayLike, "b p q"],
    words: Bool[ArrayLike, "b q l"],
    boxes: Float[ArrayLike, " b"],
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Array, " b"]:
    """The focal loss of each region with each word, summed and divided by the number of boxes.

    A word is a positive of the regions that its phrase describes, and a negative of all others; a
    region that no phrase describes is a negative of every word.

    Args:
      phrase: 1 where a phrase describes a region, else 0; words: the tokens that count, without
        padding and special tokens; boxes: of each image.

    Source: GLIP, Li et al. 2021 (arXiv 2112.03857), section 3.1: the scores of regions and words,
    with all tokens of a positive phrase positive; Lin et al. 2017 (arXiv 1708.02002), equation 5.
    """
    positive, negative = focal(word_logits, alpha, gamma)
    target = phrase[..., None]
    loss = jnp.where(words[:, None], target * positive + (1 - target) * negative, 0.0)
    return loss.sum((1, 2, 3)) / jnp.maximum(boxes, 1.0)
