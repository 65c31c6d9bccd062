"""Connectionist temporal classification."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from mmjax.batch import Batch
from mmjax.system import Weighted


def ctc_labels(batch: Batch) -> tuple[Int[Array, "b n"], Bool[Array, "b n"]]:
    """The tokens of `text` [B, L] between its begin and end tokens, [B, L-2], and their mask.

    A row whose `text_present` is false has none.
    """
    mask = jnp.asarray(batch["text_mask"])[:, 2:]
    if "text_present" in batch:
        mask = mask & jnp.asarray(batch["text_present"])[:, None]
    return jnp.asarray(batch["text"])[:, 1:-1], mask


def needed_frames(labels: Int[ArrayLike, "b n"], mask: Bool[ArrayLike, "b n"]) -> Int[Array, " b"]:
    """The fewest frames that a path of these labels has: one each, and a blank between equals."""
    labels, mask = jnp.asarray(labels), jnp.asarray(mask)
    repeats = (labels[:, 1:] == labels[:, :-1]) & mask[:, 1:]
    return mask.sum(1, dtype=jnp.int32) + repeats.sum(1, dtype=jnp.int32)


def ctc_loss(
    logits: Float[ArrayLike, "b t v"],
    frames: Bool[ArrayLike, "b t"],
    labels: Int[ArrayLike, "b n"],
    mask: Bool[ArrayLike, "b n"],
) -> dict[str, Weighted]:
    """-log of the summed probability of all paths that collapse to the labels.

    A text that does not fit its frames has no path: its loss is infinite (`torch.nn.CTCLoss`), or
    about 1e5 (`optax.ctc_loss`), with a gradient that means nothing. Such rows, and rows without
    labels, have weight 0; the first are counted.

    Args:
      logits: [B, T, V + 1], the last is the blank; frames: true on the valid ones.
      labels: [B, N] int32; mask: true on tokens.

    Returns:
      `ctc`, per token and weighted by their number, so that a batch's loss is the mean over its
      tokens; and `ctc_too_long`, 1 for a text that does not fit its frames, else 0.

    Source: Graves et al. 2006, "Connectionist temporal classification", equations 5 to 8.
    """
    logits, frames = jnp.asarray(logits, jnp.float32), jnp.asarray(frames)
    labels, mask = jnp.asarray(labels), jnp.asarray(mask)
    count = mask.sum(1, dtype=jnp.int32)
    fits = needed_frames(labels, mask) <= frames.sum(1, dtype=jnp.int32)
    loss = optax.ctc_loss(
        logits,
        (~frames).astype(jnp.float32),
        jnp.where(mask, labels, 0),
        (~mask).astype(jnp.float32),
        blank_id=logits.shape[-1] - 1,
    )
    weight = jnp.where(fits, count, 0).astype(jnp.float32)
    loss = jnp.where(fits, loss, 0.0) / jnp.maximum(count, 1).astype(jnp.float32)
    return {
        "ctc": Weighted(loss, weight),
        "ctc_too_long": Weighted((~fits).astype(jnp.float32), (count > 0).astype(jnp.float32)),
    }
