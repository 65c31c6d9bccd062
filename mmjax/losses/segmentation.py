"""Losses of binary masks, per mask: focal, dice, and the IoU of what was predicted."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float


def focal_loss(
    logits: Float[Array, "*n h w"],
    target: Bool[Array, "*n h w"],
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Array, "*n"]:
    """Mean over the pixels of -a (1 - p)^gamma log p, where p is the probability of the target.

    Args:
      alpha: the factor a of pixels of the object; others have 1 - alpha.

    Source: Lin et al. 2017 (arXiv 1708.02002), eq. 5.
    """
    labels = target.astype(jnp.float32)
    loss = optax.sigmoid_focal_loss(logits.astype(jnp.float32), labels, alpha=alpha, gamma=gamma)
    return loss.mean((-2, -1))


def dice_loss(logits: Float[Array, "*n h w"], target: Bool[Array, "*n h w"]) -> Float[Array, "*n"]:
    """1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1), with probabilities p and targets t.

    Source: Milletari et al. 2016 (arXiv 1606.04797), without squares and with 1 added to both, as
    in facebookresearch/detr, models/segmentation.py.
    """
    p, t = jax.nn.sigmoid(logits.astype(jnp.float32)), target.astype(jnp.float32)
    both = (p * t).sum((-2, -1))
    return 1 - (2 * both + 1) / (p.sum((-2, -1)) + t.sum((-2, -1)) + 1)


def mask_iou(mask: Bool[Array, "*n h w"], target: Bool[Array, "*n h w"]) -> Float[Array, "*n"]:
    """Pixels in both over pixels in either; 0 where both are empty."""
    both = (mask & target).sum((-2, -1), dtype=jnp.float32)
    either = (mask | target).sum((-2, -1), dtype=jnp.float32)
    return both / jnp.maximum(either, 1.0)


def ambiguous_mask_loss(
    logits: Float[Array, "*n k h w"],
    iou: Float[Array, "*n k"],
    target: Bool[Array, "*n h w"],
    focal: float = 20.0,
    dice: float = 1.0,
) -> tuple[Float[Array, "*n"], Float[Array, "*n"], Float[Array, "*n"]]:
    """Losses of k masks of one object, of which the best counts.

    Args:
      logits: k masks; iou: the IoU that the model predicts for each.
      focal, dice: factors of the two losses of a mask.

    Returns:
      the smallest loss of the k masks, which alone has a gradient; the mean squared error of the k
      predicted IoUs; and the IoU of the mask whose predicted IoU is the largest.

    Source: Kirillov et al. 2023 (arXiv 2304.02643), section 3, "Resolving ambiguity", and appendix
    A, "Losses". The paper does not say which of the predicted IoUs are trained; here all are.
    """
    every = jnp.broadcast_to(target[..., None, :, :], logits.shape)
    masks = focal * focal_loss(logits, every) + dice * dice_loss(logits, every)
    actual = jax.lax.stop_gradient(mask_iou(logits > 0, every))
    error = jnp.square(iou.astype(jnp.float32) - actual).mean(-1)
    chosen = jnp.take_along_axis(actual, iou.argmax(-1)[..., None], -1)[..., 0]
    return masks.min(-1), error, chosen
