"""Detection as set prediction: each box is matched with one prediction; focal, L1 and GIoU losses.

Boxes are (x0, y0, x1, y1), fractions of the image's sides. B images, P predictions each, Q queries,
N slots for boxes.

Source: DETR, Carion et al. 2020 (arXiv 2005.12872), section 3.1; with sigmoids per query as in
Deformable DETR, and normalized per image as in OWL-ViT, Minderer et al. 2022 (arXiv 2205.06230),
appendix A1.2; scenic, projects/owl_vit/losses.py and matching_base_models.py.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from mmjax.losses.focal import focal
from mmjax.losses.region_words import region_word_loss
from mmjax.sharding import batch_parts, spec

SMALLEST = 1e-9  # area, of empty boxes


def detection_loss(
    query_logits: Float[ArrayLike, "b p q"],
    pred_boxes: Float[ArrayLike, "b p 4"],
    boxes: Float[ArrayLike, "b n 4"],
    label: Int[ArrayLike, "b n"],
    boxes_mask: Bool[ArrayLike, "b n"],
    query_mask: Bool[ArrayLike, "b q"],
    objectness_logits: Float[ArrayLike, "b p"] | None = None,
    alpha: float = 0.3,
    gamma: float = 2.0,
    word_logits: Float[ArrayLike, "b p q l"] | None = None,
    words: Bool[ArrayLike, "b q l"] | None = None,
) -> dict[str, Float[Array, " b"]]:
    """Losses per image, each divided by its number of boxes; 0 boxes count as 1.

    Returns:
      `focal`: over all predictions and valid queries; a prediction that is matched with no box is
        a negative of every query ("no object").
      `box_l1` and `box_giou`: of the matched predictions, the sum over the 4 coordinates, and 1 -
        GIoU. An image without boxes has 0.
      `objectness`, with those logits: focal, whether a prediction is matched (our choice: the
        released code of OWLv2 has no loss of it).
      `region_words`, with `word_logits` and the `words` that count: see `region_word_loss`.
      `matched_iou`: mean IoU of matched predictions, a metric.

    Args:
      label: which query each box is of.
      alpha, gamma: of the focal loss.

    Raises:
      ValueError: more slots for boxes than predictions.
    """
    cost = matching_cost(query_logits, pred_boxes, boxes, label, alpha, gamma)
    token = assign(jax.lax.stop_gradient(cost), boxes_mask)
    count = jnp.maximum(boxes_mask.sum(1), 1).astype(jnp.float32)

    # ---- classes: targets [B, P, Q]
    queries, predictions = query_logits.shape[2], query_logits.shape[1]
    of_box = jax.nn.one_hot(label, queries) * boxes_mask[..., None].astype(jnp.float32)
    of_token = jax.nn.one_hot(token, predictions)
    target = jnp.einsum("bnp,bnq->bpq", of_token, of_box)
    positive, negative = focal(query_logits, alpha, gamma)
    loss = jnp.where(query_mask[:, None], target * positive + (1 - target) * negative, 0.0)
    terms = {"focal": loss.sum((1, 2)) / count}
    if objectness_logits is not None:
        matched = jnp.einsum("bnp,bn->bp", of_token, boxes_mask.astype(jnp.float32))
        positive, negative = focal(objectness_logits, alpha, gamma)
        terms["objectness"] = (matched * positive + (1 - matched) * negative).sum(1) / count

    if word_logits is not None:
        terms["region_words"] = region_word_loss(word_logits, target, words, count, alpha, gamma)

    # ---- boxes
    found = jnp.take_along_axis(pred_boxes, token[..., None], axis=1)
    iou, giou = box_overlap(found, boxes)

    def mean(x):
        return jnp.where(boxes_mask, x, 0.0).sum(1) / count

    terms["box_l1"] = mean(jnp.abs(found - boxes).sum(-1))
    return terms | {"box_giou": mean(1 - giou), "matched_iou": mean(iou)}


def matching_cost(
    query_logits: Float[ArrayLike, "b p q"],
    pred_boxes: Float[ArrayLike, "b p 4"],
    boxes: Float[ArrayLike, "b n 4"],
    label: Int[ArrayLike, "b n"],
    alpha: float,
    gamma: float,
) -> Float[Array, "b p n"]:
    """What it adds to the losses to match a prediction with a box: focal, L1, and -GIoU."""
    positive, negative = focal(query_logits, alpha, gamma)
    of_label = jnp.take_along_axis(positive - negative, label[:, None], axis=2)
    distance = jnp.abs(pred_boxes[:, :, None] - boxes[:, None]).sum(-1)
    _, giou = box_overlap(pred_boxes[:, :, None], boxes[:, None])
    return of_label + distance - giou


def assign(cost: Float[ArrayLike, "b p n"], valid: Bool[ArrayLike, "b n"]) -> Int[Array, "b n"]:
    """The prediction of each box, no two the same, of the least total cost over the valid boxes.

    Slots that are not valid get predictions that remain.

    Raises:
      ValueError: more slots than predictions.
    """
    if cost.shape[1] < cost.shape[2]:
        raise ValueError(
            f"An image has {cost.shape[2]} slots for boxes and the model predicts {cost.shape[1]}: "
            "set config.model.boxes to at most the number of patches, or a smaller patch_size."
        )
    # Equal costs in a column have no influence on the others, as there are predictions for all.
    cost = jnp.where(valid[:, None], cost, 0.0)

    def one(matrix):
        rows, columns = optax.assignment.hungarian_algorithm(matrix)
        return jnp.zeros(matrix.shape[1], jnp.int32).at[columns].set(rows.astype(jnp.int32))

    solve = jax.vmap(one)
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and not cost.shape[0] % batch_parts(mesh):
        # Each device iterates until its own images are done, not those of all devices.
        split = spec("batch")
        solve = jax.shard_map(solve, in_specs=split, out_specs=split, check_vma=False)
    return solve(cost)


def box_overlap(a: Float[ArrayLike, "*#s 4"], b: Float[ArrayLike, "*#s 4"]) -> tuple[Array, Array]:
    """(IoU, generalized IoU) of boxes; an empty box has IoU 0.

    Source: Rezatofighi et al. 2019 (arXiv 1902.09630), algorithm 1.
    """

    def area(box):
        sides = jnp.maximum(box[..., 2:] - box[..., :2], 0.0)
        return sides[..., 0] * sides[..., 1]

    low, high = jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])
    inner = area(jnp.concatenate([low, high], -1))
    union = jnp.maximum(area(a) + area(b) - inner, SMALLEST)
    low, high = jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])
    hull = jnp.maximum(area(jnp.concatenate([low, high], -1)), SMALLEST)
    iou = inner / union
    return iou, iou - (hull - union) / hull
