"""FLAVA's pretraining: masked images and texts, pairs that do not match, and the losses.

Each example has the losses of what it has, so that one run trains on pairs and on either alone:

    an image alone   mim          masked patches, from the image encoder
    a text alone     mlm          masked tokens, from the text encoder
    a pair           contrastive  of its embeddings, without masking, among the pairs of the batch
                     matching     whether the text, which another pair's may replace, matches
                     mmm_image, mmm_text   masked patches and tokens of a matching pair, both
                                  masked, from the multimodal encoder

Source: Singh et al. 2022 (arXiv 2112.04482), section 3.2; transformers' FlavaForPreTraining.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmjax.batch import Batch
from mmjax.layers.pooling import end_position
from mmjax.losses.block_masks import mask_blocks
from mmjax.losses.contrastive import CHUNK_SIZE, MEMORY_MB, contrastive_loss
from mmjax.losses.masked import mask_words, masked_ids
from mmjax.models.clip import duplicate_ids
from mmjax.sample.rows import numbered
from mmjax.system import Context, Outputs, Terms, Weighted

# The examples that have each loss: with an image, with a text.
ROWS = {
    "mim": (True, False),
    "mlm": (False, True),
    **dict.fromkeys(("contrastive", "matching", "mmm_image", "mmm_text"), (True, True)),
}
_IMAGE, _PARTNER, _TEXT = range(3)  # what a row's key is folded with


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Every field of `config.loss`.

    Attributes:
      mask_patches, mask_patches_min: patches of an image that are masked in all, and at least in
        one block; see `mask_blocks`.
      mask_text: probability with which a token is chosen; see `mask_words`.
      matching_negatives: fraction of the pairs whose text is replaced by that of another pair.
      mask_duplicates: in the contrastive loss, do not use pairs that share an image or a caption as
        negatives.
      implementation, chunk_size, memory_mb: see `contrastive_loss`.

    Raises:
      ValueError: a probability or fraction that is none.
    """

    mask_patches: int = 75
    mask_patches_min: int = 16
    mask_text: float = 0.15
    matching_negatives: float = 0.1
    mask_duplicates: bool = False
    implementation: str = "auto"
    chunk_size: int = CHUNK_SIZE
    memory_mb: float = MEMORY_MB

    def __post_init__(self):
        if not 0 < self.mask_text < 1:
            raise ValueError(
                f"config.loss.mask_text is {self.mask_text}: it is above 0 and below 1."
            )
        if not 0 <= self.matching_negatives <= 1:
            raise ValueError(
                f"config.loss.matching_negatives is {self.matching_negatives}: use 0 to 1."
            )

    def check(self, model: Any) -> None:
        """Raise ValueError for numbers of masked patches that the model's images cannot have."""
        image = model.image_tower(parent=None)
        patch, most = image.sizes["patch_size"], self.mask_patches
        count = math.prod(side // patch for side in image.train_size)
        if not 0 < self.mask_patches_min <= most < count:
            raise ValueError(
                f"config.loss.mask_patches is {most} and mask_patches_min {self.mask_patches_min} "
                f"of {count} patches in an image: use 0 < mask_patches_min <= mask_patches "
                f"< {count}."
            )


def corrupt(model: Any, settings: Settings, batch: Batch, context: Context) -> Batch:
    """The batch with its masks and with texts that do not match.

    Adds `image_masked` [B, patches], `text_matched` [B], and of the text, or of the other that
    replaces it, `text_corrupted` [B, L] with `text_corrupted_mask` and `text_masked`, the tokens to
    predict. `text` stays. The first and the last token of a text, which are special, are never
    masked.
    """
    image, text = model.image_tower(parent=None), model.text_tower(parent=None)
    keys = {what: numbered(context.rng, what) for what in (_IMAGE, _PARTNER, _TEXT)}
    most, least = settings.mask_patches, settings.mask_patches_min
    masked = mask_blocks(keys[_IMAGE], image.grid, total=most, smallest=least)

    draws = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys[_PARTNER])
    pairs = jnp.logical_and(*_present(batch))
    other = other_pairs(pairs, draws[:, 0])
    other = jnp.where(draws[:, 1] < settings.matching_negatives, other, jnp.arange(len(other)))
    tokens, valid = batch["text"][other], batch["text_mask"][other]
    same = (valid == batch["text_mask"]) & ((tokens == batch["text"]) | ~valid)

    place = jnp.arange(tokens.shape[1])[None]
    maskable = valid & (place > 0) & (place < end_position(valid)[:, None])
    corrupted, chosen = mask_words(
        tokens,
        maskable,
        keys[_TEXT],
        vocab_size=text.vocab_size,
        mask_id=text.vocab_size - 1 if text.mask_id is None else text.mask_id,
        rate=settings.mask_text,
    )
    return {
        **batch,
        "image_masked": masked,
        "text_matched": same.all(1),
        "text_corrupted": corrupted,
        "text_corrupted_mask": valid,
        "text_masked": chosen,
    }


def other_pairs(pairs: jax.Array, draws: jax.Array) -> jax.Array:
    """For each pair the index of another, each equally likely; else a row's own index. [B] int32.

    Args:
      pairs: [B] bool; draws: [B] in [0, 1).
    """
    own, count = jnp.arange(len(pairs), dtype=jnp.int32), pairs.sum(dtype=jnp.int32)
    in_order = jnp.argsort(~pairs, stable=True).astype(jnp.int32)
    rank = jnp.cumsum(pairs, dtype=jnp.int32) - 1
    further = 1 + (draws * (count - 1).astype(jnp.float32)).astype(jnp.int32)
    other = in_order[(rank + further) % jnp.maximum(count, 1)]
    return jnp.where(pairs & (count > 1), other, own)


def terms(settings: Settings, outputs: Outputs, batch: Batch, context: Context) -> Terms:
    """The losses of each example, see the top of this file, and accuracies."""
    del context
    image, text = _present(batch)
    pairs = image & text
    found = _contrastive(settings, outputs, batch, pairs)
    if "match_logits" not in outputs:
        return found
    matched = batch["text_matched"]
    of_text = (batch["text"], batch["text_masked"])
    tasks = {
        "mlm": ("masked_text_logits", *of_text, text & ~image),
        "mmm_text": ("multimodal_text_logits", *of_text, pairs & matched),
    }
    if "image_codes" in outputs:
        of_image = (outputs["image_codes"], batch["image_masked"])
        tasks["mim"] = ("masked_image_logits", *of_image, image & ~text)
        tasks["mmm_image"] = ("multimodal_image_logits", *of_image, pairs & matched)
    for name, (logits, target, masked, rows) in tasks.items():
        found[name] = masked_ids(outputs[logits], target, masked & rows[:, None])
    label = matched.astype(jnp.int32)
    matching = optax.softmax_cross_entropy_with_integer_labels(outputs["match_logits"], label)
    found["matching"] = Weighted(matching, pairs)
    found["matching_accuracy"] = Weighted(outputs["match_logits"].argmax(-1) == label, pairs)
    return found


def _contrastive(
    settings: Settings, outputs: Outputs, batch: Batch, pairs: jax.Array
) -> dict[str, Any]:
    image_ids, text_ids = duplicate_ids(batch) if settings.mask_duplicates else (None, None)
    losses, metrics = contrastive_loss(
        outputs["image_embed"],
        outputs["text_embed"],
        outputs["logit_scale"],
        implementation=settings.implementation,
        chunk_size=settings.chunk_size,
        memory_mb=settings.memory_mb,
        image_ids=image_ids,
        text_ids=text_ids,
        present=pairs,
    )
    found = {"contrastive": losses, **metrics}
    found = {k: Weighted(x, pairs) if x.ndim else x for k, x in found.items()}
    return {**found, "logit_scale": outputs["logit_scale"]}


def _present(batch: Batch) -> tuple[Any, Any]:
    """[B] bool, which examples have an image, and which a text."""
    everywhere = np.ones(len(batch["text"]), bool)
    return batch.get("image_present", everywhere), batch.get("text_present", everywhere)


def check_rows(loss_weights: Mapping[str, Any], batch: Batch) -> None:
    """Raise ValueError for a batch on the host no example of which has a weighted loss, and for one
    pair whose losses need another."""
    if jax.process_count() > 1:  # the rows of one process may have none
        return
    if len(batch["text"]) == 1 and {"contrastive", "matching"} & set(loss_weights):
        raise ValueError(
            "A batch of one has no other pair, to contrast it with or to replace its text: raise "
            "config.batch_size, or weigh neither contrastive nor matching in config.loss_weights."
        )
    image, text = (np.asarray(x) for x in _present(batch))
    names = [name for name in loss_weights if name in ROWS]
    if any(np.any((image == i) & (text == t)) for i, t in (ROWS[name] for name in names)):
        return
    counts = f"{(image & ~text).sum()} images alone, {(text & ~image).sum()} texts alone and "
    counts += f"{(image & text).sum()} pairs"
    raise ValueError(
        f"The batch has {counts}, and none of them has a loss in config.loss_weights "
        f"({', '.join(sorted(loss_weights))}): mim needs images alone, mlm texts alone, the others "
        "pairs; weigh other losses, or add such examples to config.data.train."
    )
