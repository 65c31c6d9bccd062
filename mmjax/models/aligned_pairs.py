"""What ALBEF and BLIP learn of pairs: contrast with a teacher's keys and a queue, and matching."""

import jax
import jax.numpy as jnp

from mmjax.batch import Batch
from mmjax.config import check_type
from mmjax.losses.matching import matching_loss
from mmjax.losses.momentum_contrast import batch_keys, momentum_contrast, queue_of
from mmjax.models import clip
from mmjax.schedule import Schedule, check_schedule, schedule
from mmjax.system import Context, Outputs, Terms, Weighted


def check_settings(alpha: Schedule, queue_size: int, chunk_size: int) -> None:
    """Raise ValueError for settings of `config.loss` that are out of range."""
    check_schedule(alpha, "config.loss.alpha", 0.0, 1.0)
    check_type(queue_size, int, "config.loss.queue_size")
    check_type(chunk_size, int, "config.loss.chunk_size")
    if queue_size < 0 or chunk_size < 0:
        raise ValueError(
            f"config.loss has queue_size {queue_size} and chunk_size {chunk_size}: use 0 or more."
        )


def keys_of(outputs: Outputs, batch: Batch, mask_duplicates: bool = True) -> dict[str, jax.Array]:
    """The keys of a batch, see `momentum_contrast`.

    Args:
      outputs: of the teacher, with image_embed and text_embed.
      mask_duplicates: pairs that share an image or a caption are no negatives of each other.
    """
    ids = clip.duplicate_ids(batch) if mask_duplicates else (None, None)
    embeds = (outputs[f"{kind}_embed"] for kind in ("image", "text"))
    return batch_keys(*embeds, *ids, clip.pairs_present(batch))


def contrast(
    outputs: Outputs,
    batch: Batch,
    context: Context,
    alpha: Schedule,
    chunk_size: int = 0,
    mask_duplicates: bool = True,
) -> Terms:
    """`contrastive` with its accuracies, and `logit_scale`.

    Without a teacher its keys are those of the student itself.

    Args:
      alpha: weight of the teacher's distribution in the targets.
      chunk_size: see `momentum_contrast`.
    """
    keys = keys_of(context.teacher or outputs, batch, mask_duplicates)
    student = {kind: outputs[f"{kind}_embed"] for kind in ("image", "text")}
    queue, scale = queue_of(context.memory), outputs["logit_scale"]
    weight = schedule(alpha, context.step)
    losses, accuracies = momentum_contrast(student, keys, queue, scale, weight, chunk_size)
    terms = {"contrastive": losses, **accuracies}
    return {k: Weighted(x, keys["valid"]) for k, x in terms.items()} | {"logit_scale": scale}


def matching(outputs: Outputs, batch: Batch) -> Terms:
    """`matching` and its accuracy, of each pair and its two negatives."""
    logits = jnp.concatenate([outputs["match_logits"][:, None], outputs["mismatch_logits"]], 1)
    return matching_loss(logits, outputs["negatives_exist"], clip.pairs_present(batch))
