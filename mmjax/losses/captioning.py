"""Next-token prediction: cross-entropy of each token given the tokens before it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from mmjax.batch import Batch
from mmjax.system import Weighted


def supervised(batch: Batch) -> Bool[Array | np.ndarray, "b next"]:
    """[B, L-1] bool: which tokens after the first are prediction targets.

    `text_loss_mask` where the batch has one (such as answers without their questions), else
    `text_mask`; none in a row whose `text_present` is false.
    """
    mask = batch["text_loss_mask" if "text_loss_mask" in batch else "text_mask"][:, 1:]
    if "text_present" in batch:
        mask = mask & batch["text_present"][:, None]
    return mask


def check_supervised(batch: Batch) -> None:
    """Raise ValueError where the texts of a batch on the host have no token to predict.

    A batch without any text (`text_present` false in every row) is allowed: it comes from another
    data set of a mixture.
    """
    if not np.any(batch.get("text_present", True)):
        return
    if not np.asarray(supervised(batch)).any():
        raise ValueError(
            "No token of the batch is supervised: every text is empty, missing or masked out. "
            "Check the captions of config.data.train, and the length in tokenize()."
        )


def token_losses(
    logits: Float[ArrayLike, "b l v"], text: Int[ArrayLike, "b l"], label_smoothing: float = 0.0
) -> Float[Array, "b l-1"]:
    """-log p(token) of each token after the first: logits [B, L, V], text [B, L] -> [B, L-1].

    With smoothing the target keeps 1 - label_smoothing and the rest is spread over the vocabulary
    (Szegedy et al. 2016, arXiv 1512.00567, section 7).
    """
    logits = logits.astype(jnp.float32)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    target = _of_next(logits, text)
    if label_smoothing:
        target = (1 - label_smoothing) * target + label_smoothing * logits.mean(-1)
    return (log_z - target)[:, :-1]


def _of_next(logits: Float[ArrayLike, "b l v"], text: Int[ArrayLike, "b l"]) -> Float[Array, "b l"]:
    """[B, L]: the logit of the next token at each position; the last value has no meaning.

    It is kept because slicing the logits would copy them, and pad their gradient.
    """
    return jnp.take_along_axis(logits, jnp.roll(text, -1, axis=1)[..., None], axis=-1)[..., 0]


def captioning_loss(
    logits: Float[ArrayLike, "b l v"], batch: Batch, label_smoothing: float = 0.0
) -> dict[str, Weighted]:
    """Each text's mean over its supervised tokens, weighted by their number.

    So the loss of a batch is the mean over all its supervised tokens. A batch with texts but
    without a supervised token has the loss NaN, never 0.

    Args:
      logits: [B, L, V]; position i predicts the token at i + 1.

    Returns:
      `captioning`, and `token_accuracy`: the fraction whose logit is the largest, ties included.
    """
    mask = supervised(batch)
    count = mask.sum(1, dtype=jnp.float32)
    losses = token_losses(logits, batch["text"], label_smoothing)
    # Not argmax, which on XLA's CPU backend takes as long as the rest of the loss.
    largest = _of_next(logits, batch["text"]) >= logits.max(-1)
    correct = (largest[:, :-1] & mask).sum(1, dtype=jnp.float32)
    present = batch.get("text_present", jnp.ones(len(count), bool))
    nothing = (count.sum() == 0) & present
    value = jnp.where(mask, losses, 0.0).sum(1) / jnp.maximum(count, 1.0)
    value = jnp.where(nothing, jnp.nan, value)
    return {
        "captioning": Weighted(value, jnp.where(nothing, 1.0, count)),
        "token_accuracy": Weighted(correct / jnp.maximum(count, 1.0), count),
    }
