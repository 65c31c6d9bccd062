"""Hard negatives of a CLIP: swapped captions as further texts of a batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmjax.batch import Batch
from mmjax.system import Outputs


def with_negatives(batch: Batch) -> Batch:
    """The texts of a batch and after them, if it has them, their hard negatives, [2 B, L]."""
    if "text_negative" not in batch:
        return batch
    names = {"text": "text_negative", "text_mask": "text_negative_mask"}
    return {k: jnp.concatenate([batch[k], batch[other]]) for k, other in names.items()}


def negatives_of(
    outputs: Outputs,
    batch: Batch,
    text_ids: jax.Array | None,
    row_ids: Callable[..., jax.Array],
) -> dict[str, jax.Array]:
    """Arguments of `contrastive_loss`: the embeddings of hard negatives, and for which images.

    One that is the caption of an image of the batch is no negative of it, if `text_ids` are given.
    """
    text, mask = batch["text_negative"], batch["text_negative_mask"]
    applies = jnp.broadcast_to(mask.any(-1)[None], (len(mask), len(mask)))
    if text_ids is not None:
        applies &= text_ids[:, None] != row_ids(text, mask)[None]
    return {"negatives": outputs["text_negative_embed"], "negatives_apply": applies}
