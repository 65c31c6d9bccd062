"""What BLIP learns from: contrast with a momentum teacher and a queue, matching, and captioning."""

import functools
from typing import Any

import flax.linen as nn
import jax

from mmjax.batch import Batch
from mmjax.losses.captioning import captioning_loss
from mmjax.losses.momentum_contrast import push_to, queue_memory, queue_of
from mmjax.models import clip
from mmjax.models.aligned_pairs import check_settings, contrast, keys_of, matching
from mmjax.schedule import Schedule
from mmjax.system import Context, Memory, Outputs, Terms


def objectives(
    model: nn.Module,
    alpha: Schedule = 0.4,
    queue_size: int = 0,
    chunk_size: int = 0,
    mask_duplicates: bool = True,
    caption_smoothing: float = 0.1,
) -> dict[str, Any]:
    """The loss and what belongs to it, as fields of a `System`.

    A model with `embed_dim` has the terms `contrastive` and `matching`, each with accuracies, and
    `logit_scale`; one with a decoder `captioning` and `token_accuracy`. Without config.ema.teacher
    and without a queue, `contrastive` is that of CLIP.

    Args:
      alpha: weight of the teacher's soft targets, as a schedule.
      queue_size: pairs of the teacher's embeddings of earlier batches that are further keys.
      chunk_size: keys of the queue that are compared at once; 0: all.
      mask_duplicates: pairs that share an image or a caption are no negatives of each other in
        `contrastive`; in `matching` they never are.
      caption_smoothing: label smoothing of `captioning`.

    Raises:
      ValueError: an alpha or a queue_size out of range.

    Source: Li et al. 2022 (arXiv 2201.12086), section 3.2; ALBEF (arXiv 2107.07651), eq. 6.
    """
    check_settings(alpha, queue_size, chunk_size)

    def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
        found = {}
        if model.embeds:
            if context.teacher is None and queue_of(context.memory) is None:
                found |= clip.contrastive(mask_duplicates=mask_duplicates)(outputs, batch, context)
            else:
                found |= contrast(outputs, batch, context, alpha, chunk_size, mask_duplicates)
            found |= matching(outputs, batch)
        if model.decoder:
            found |= captioning_loss(outputs["text_logits"], batch, caption_smoothing)
        return found

    if not model.embeds:
        return {"loss": loss}
    hooks = {
        "loss": loss,
        "corrupt": with_draws,
        "limits": {} if model.fixed_scale else clip.limits(model),
        "couples_rows": "it matches images with other texts of the batch",
    }
    if not queue_size:
        return hooks

    def remember(memory: Memory, outputs: Outputs, batch: Batch, context: Context) -> Memory:
        made = outputs if context.teacher is None else context.teacher
        return push_to(memory, keys_of(made, batch, mask_duplicates))

    memory = functools.partial(queue_memory, queue_size, model.embed_dim)
    return hooks | {"memory": memory, "remember": remember}


def with_draws(batch: Batch, context: Context) -> Batch:
    """The batch with `negative_draws` [B, 2], uniform numbers for `hard_negatives`."""
    draw = functools.partial(jax.random.uniform, shape=(2,))
    return {**batch, "negative_draws": jax.vmap(draw)(context.rng)}
