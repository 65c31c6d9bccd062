"""Next-token prediction: cross-entropy of each token given those before it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from mmjax.batch import Batch
from mmjax.system import Weighted


def supervised(batch: Batch) -> Bool[Array | np.ndarray, "b next"]:
    """[B, L-1] bool: which tokens after the first are to be predicted.

    Those of `text_loss_mask` where the batch has one (an answer and not its question), else all
    of `text_mask`; none of a row whose `text_present` is false.
    """
    mask = batch["text_loss_mask" if "text_loss_mask" in batch else "text_mask"][:, 1:]
    if "text_present" in batch:
        mask = mask & batch["text_present"][:, None]
    return mask


def check_supervised(batch: Batch) -> None:
    """Raise ValueError where the texts of a batch on the host have no token to predict.

    A batch without any text (`text_present` false in every row) is one that another part of a
    mixture gave.
    """
    if not np.any(batch.get("text_present", True)):
        return
    if not np.asarray(supervised(batch)).any():
        raise ValueError(
            "No token of the batch is supervised: every text is empty, absent or masked out. Check "
            "the captions of config.data.train, and the length in tokenize()."
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
    said = _of_next(logits, text)
    if label_smoothing:
        said = (1 - label_smoothing) * said + label_smoothing * logits.mean(-1)
    return (log_z - said)[:, :-1]


def _of_next(logits: Float[ArrayLike, "b l v"], text: Int[ArrayLike, "b l"]) -> Float[Array, "b l"]:
    """[B, L]: each token's logit of the next one; the last one's means nothing.

    It is there because logits without their last place would be copied, and their gradient padded.
    """
    return jnp.take_along_axis(logits, jnp.roll(text, -1, axis=1)[..., None], axis=-1)[..., 0]


def captioning_loss(
    logits: Float[ArrayLike, "b l v"], batch: Batch, label_smoothing: float = 0.0
) -> dict[str, Weighted]:
    """Each text's mean over its supervised tokens, weighted by their number.

    So the loss of a batch is the mean over all its supervised tokens. A batch whose texts are
    there but supervise no token has the loss NaN, never 0.

    Args:
      logits: [B, L, V]; those at position i are of the token at i + 1.

    Returns:
      `captioning`, and `token_accuracy`: the fraction whose logit is the largest, ties included.
    """
    mask = supervised(batch)
    count = mask.sum(1, dtype=jnp.float32)
    losses = token_losses(logits, batch["text"], label_smoothing)
    # Not by argmax, which takes XLA's CPU backend as long as the rest of the loss.
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
