"""Image-text matching: negatives sampled from the batch by their similarity, and the loss."""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Shaped

from mmjax.losses.duplicates import Ids
from mmjax.system import Weighted

SMALLEST = 1e-4  # added to each negative's probability, as in the original


def hard_negatives(
    image_embed: Float[ArrayLike, "b d"],
    text_embed: Float[ArrayLike, "b d"],
    logit_scale: Float[ArrayLike, ""],
    draws: Float[ArrayLike, "b 2"],
    ids: Ids = (None, None),
    present: Bool[ArrayLike, " b"] | None = None,
    group: int = 0,
) -> tuple[Int[Array, " b"], Int[Array, " b"], Bool[Array, " b"]]:
    """A text that does not belong to each image, and an image that does not belong to each text.

    Each is drawn with probability softmax(scale · similarity) + 1e-4 (renormalized) from the group
    of the query, without its own pair, pairs with the same image or text, and incomplete ones.
    The draws make it a pure function; no gradient passes.

    Args:
      draws: in [0, 1), for the text and for the image.
      ids: (image ids, text ids) [B]; see `negative_pairs`.
      group: negatives come from the same `group` consecutive rows, so that a mesh whose parts of
        the batch are multiples of it moves no tokens between devices; 0: the whole batch.

    Returns:
      The position in the batch of each image's text and of each text's image, and whether there
      is such a negative (else the positions are the row's own), [B] each.

    Raises:
      ValueError: a batch that the group does not divide.

    Source: ALBEF, Li et al. 2021 (arXiv 2107.07651), section 3.2; salesforce/ALBEF,
    models/model_pretrain.py.
    """
    rows = len(image_embed)
    group = group or rows
    check_group(rows, group)

    def split(x):
        return None if x is None else rearrange(jnp.asarray(x), "(n g) ... -> n g ...", g=group)

    x, y = (jax.lax.stop_gradient(split(a)) for a in (image_embed, text_embed))
    logits = jax.lax.stop_gradient(logit_scale) * jnp.einsum(
        "nid,njd->nij", x, y, precision="highest", preferred_element_type=jnp.float32
    )
    allowed = jnp.broadcast_to(~jnp.eye(group, dtype=bool)[None], logits.shape)
    for values in map(split, ids):
        if values is not None:
            allowed &= values[:, :, None] != values[:, None]
    if present is not None:
        allowed &= split(present)[:, :, None] & split(present)[:, None]
    draws = split(draws)
    text = _draw(logits, allowed, draws[..., 0])
    image = _draw(jnp.swapaxes(logits, 1, 2), jnp.swapaxes(allowed, 1, 2), draws[..., 1])
    first = group * jnp.arange(rows // group, dtype=jnp.int32)[:, None]
    exists = allowed.any(-1)  # `allowed` is symmetric
    own = jnp.arange(rows, dtype=jnp.int32)
    text, image, exists = (
        rearrange(a, "n g -> (n g)") for a in (text + first, image + first, exists)
    )
    return jnp.where(exists, text, own), jnp.where(exists, image, own), exists


def _draw(
    logits: Float[Array, "n q k"], allowed: Bool[Array, "n q k"], draw: Float[Array, "n q"]
) -> Int[Array, "n q"]:
    """The key at which the cumulative probability passes the draw."""
    weights = jnp.where(allowed, jax.nn.softmax(logits, -1) + SMALLEST, 0.0)
    total = jnp.cumsum(weights, -1)
    wanted = draw[..., None] * total[..., -1:]
    # The first key whose cumulative weight exceeds it has a positive weight, whatever the rounding.
    reached = (total > wanted) & allowed
    return jnp.argmax(reached, -1).astype(jnp.int32)


def check_group(rows: int, group: int) -> None:
    """Raise ValueError for groups of negatives that a batch cannot have."""
    if group and (group < 2 or rows % group):
        raise ValueError(
            f"Negatives come from groups of {group} rows and the batch has {rows}: use a divisor "
            "of the batch of at least 2."
        )


def check_negatives(text: Shaped[np.ndarray, "b l"], group: int = 0) -> None:
    """Raise ValueError for the texts of a batch on the host, none of which is another's negative.

    Not checked with several processes, as each has a part of the batch.
    """
    if jax.process_count() > 1:
        return
    if len(text) == 1:
        raise ValueError("A batch of one pair has no negatives to match: raise config.batch_size.")
    check_group(len(text), group)
    if (text == text[:1]).all():
        raise ValueError(
            f"All {len(text)} texts of the batch are equal, so none is a negative of another: "
            "check the captions of config.data.train."
        )


def take_rows(
    x: Shaped[Array, "b ..."],
    rows: Int[Array, " b"],
    group: int = 0,
) -> Shaped[Array, "b ..."]:
    """x[rows], where row i comes from the group of i: no device needs another's group."""
    group = group or len(x)
    parts = rearrange(x, "(n g) ... -> n g ...", g=group)
    place = rearrange(rows, "(n g) -> n g", g=group) % group
    taken = jax.vmap(lambda part, at: jnp.take(part, at, axis=0))(parts, place)
    return rearrange(taken, "n g ... -> (n g) ...")


def matching_loss(
    logits: Float[ArrayLike, "b 3 2"],
    exists: Bool[ArrayLike, " b"],
    present: Bool[ArrayLike, " b"] | None = None,
) -> dict[str, Weighted]:
    """`matching` and `matching_accuracy` of each example: cross-entropy of "does not match" (class
    0) and "matches" (class 1), the mean over its own pair and its two negatives.

    Args:
      logits: of the pair itself, of its image with another text, of its text with another image.
      exists: from `hard_negatives`; an example without negatives has only its own pair.
      present: which pairs are complete; None: all.
    """
    logits = logits.astype(jnp.float32)
    margin = logits[..., 1] - logits[..., 0]
    sign = jnp.array([-1.0, 1.0, 1.0])[None]
    rows = jnp.ones(len(logits), bool) if present is None else present
    counted = jnp.stack([rows, rows & exists, rows & exists], 1)
    count = counted.sum(1, dtype=jnp.float32)

    def mean(values):
        return Weighted(jnp.sum(values, 1, where=counted) / jnp.maximum(count, 1.0), count)

    return {
        "matching": mean(jax.nn.softplus(sign * margin)),
        "matching_accuracy": mean((sign * margin < 0).astype(jnp.float32)),
    }
