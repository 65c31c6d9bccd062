"""Image-text pairs of which each row of a batch has several, see `NaFlex`.

Their losses are those of the same pairs one to a row, whatever shares a row.
"""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from mmjax.batch import Batch
from mmjax.losses.duplicates import Ids
from mmjax.system import Outputs, Weighted


def each_text(tower: nn.Module, batch: Batch, *, train: bool) -> Outputs:
    """A text tower's outputs, [B, M, ...] of texts [B, M, L]."""
    if batch["text"].ndim == 2:
        return tower(batch, train=train)
    texts = {k: batch[k] for k in ("text", "text_mask") if k in batch}
    found = tower({k: rearrange(x, "b m l -> (b m) l") for k, x in texts.items()}, train=train)
    several = batch["text"].shape[1]
    return {k: rearrange(x, "(b m) ... -> b m ...", m=several) for k, x in found.items()}


def flat_pairs(
    images: jax.Array, texts: jax.Array, batch: Batch, present: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Embeddings [B * M, D] of the pairs of all rows, and which of them exist [B * M].

    Args:
      images, texts: [B, M, D]; present: [B], rows that have both.

    Raises:
      ValueError: rows with another number of texts than of images.
    """
    if images.shape != texts.shape:
        raise ValueError(
            f"The rows have {images.shape[1:2]} images and {texts.shape[1:2]} texts: give patches "
            "and tokenize of the transform packed examples, of as many of both."
        )
    exists = (batch["image_grid"] > 0).all(-1) & batch["text_mask"].any(-1)
    if present is not None:
        exists &= present[:, None]
    flat = [rearrange(x, "b m d -> (b m) d") for x in (images, texts)]
    return *flat, exists.reshape(-1)


def packed_ids(batch: Batch, row_ids: Callable[..., jax.Array]) -> Ids | None:
    """Image ids and text ids of the pairs of all rows, as `duplicate_ids`; None if not packed.

    No two rows of a file of packs share an image, so that a pair's row and place identify it.
    """
    if batch["text"].ndim == 2:
        return None
    several, ids = batch["text"].shape[1], batch.get("example_id")
    if ids is not None:
        ids = (ids[:, None] * several + jnp.arange(several, dtype=ids.dtype)[None]).reshape(-1)
    text, mask = (rearrange(batch[k], "b m l -> (b m) l") for k in ("text", "text_mask"))
    return ids, row_ids(text, mask)


def by_row(
    terms: Mapping[str, jax.Array], present: jax.Array, rows: int
) -> dict[str, jax.Array | Weighted]:
    """Terms of pairs [B * M] as terms of rows [B], weighted by their number of pairs.

    Their average over the batch is the mean over all pairs that are present.
    """
    weight = rearrange(present.astype(jnp.float32), "(b m) -> b m", b=rows)
    count = weight.sum(1)

    def of_rows(term):
        if not term.ndim:
            return term
        value = rearrange(term.astype(jnp.float32), "(b m) -> b m", b=rows)
        total = jnp.where(weight > 0, value, 0.0).sum(1)
        return Weighted(total / jnp.maximum(count, 1.0), count)

    return {name: of_rows(term) for name, term in terms.items()}
