"""Contrastive losses between paired image and text embeddings: softmax (CLIP), sigmoid (SigLIP).

Both exist in forms that give the same value and gradients:
  dense     holds all N x N logits and is differentiated by JAX: the reference, below;
  chunked   holds chunk_size x N logits and recomputes them in the backward pass (`blockwise.py`);
  ring      holds chunk_size x N / devices logits, and no device holds the embeddings of the whole
            batch (`blockwise.py`).
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from mmjax.losses.blockwise import chunked, ring
from mmjax.losses.duplicates import Ids, negative_pairs
from mmjax.sharding import batch_parts

KINDS = ("softmax", "sigmoid")

# Up to this budget the dense form is about as fast. On 2 CPU cores, D = 512, ratios dense / chunked
# of softmax time, sigmoid time, and memory: N = 2,048 (59 MB): 1.25, 1.04, 1.8; 4,096 (218 MB):
# 1.19, 1.03, 3.4; 8,192 (839 MB): 1.19, 1.28, 5.9; 16,384: 1.57, 1.45, 14.4. See
# contrastive_loss.md.
MEMORY_MB = 256
CHUNK_SIZE = 1024


def contrastive_loss(
    image_embed: Float[ArrayLike, "..."],  # `_check` checks the shapes, with clearer messages
    text_embed: Float[ArrayLike, "..."],
    logit_scale: Float[ArrayLike, ""],
    logit_bias: Float[ArrayLike, ""] | None = None,
    *,
    kind: str = "softmax",
    implementation: str = "auto",
    chunk_size: int = CHUNK_SIZE,
    memory_mb: float = MEMORY_MB,
    label_smoothing: float = 0.0,
    image_ids: Int[ArrayLike, "..."] | None = None,
    text_ids: Int[ArrayLike, "..."] | None = None,
    present: Bool[ArrayLike, "..."] | None = None,
    directions: tuple[float, float] = (0.5, 0.5),
    negatives: Float[ArrayLike, "m d"] | None = None,
    negatives_apply: Bool[ArrayLike, "n m"] | None = None,
) -> tuple[Float[Array, " n"], dict[str, jax.Array]]:
    """Contrastive loss of each of N image-text pairs, pair (i, i) being the match.

    With logits l_ij = logit_scale * <image_i, text_j> + logit_bias, and K the set of kept pairs
    (the diagonal, and the pairs that share neither image id nor text id; all pairs without ids), of
    present examples only:

      softmax  weighted sum (the mean) over both directions of
               log sum_j exp(l_j) - sum_j t_j l_j,  j over the query's kept pairs,
               t = (1 - a) * onehot + a / (number of kept pairs).
               logit_bias cancels out: it has no effect and a gradient of zero.
      sigmoid  sum over the image's pairs in K of  softplus(l_ij) - t_ij * l_ij,
               t = (1 - a) * onehot + a / 2.

    a = label_smoothing; t is `optax.smooth_labels` over the kept classes (two, for sigmoid). The
    loss of a batch is the mean over the pairs that are present.

    Args:
      image_embed, text_embed: [N, D]; unit length expected, any length is computed correctly.
      logit_scale: scalar, already exponentiated.
      logit_bias: scalar, or None for 0.
      kind: "softmax" or "sigmoid".
      implementation: "dense", "chunked", "ring", or "auto": see `choose`.
      chunk_size: maximum rows of logits that the chunked and ring forms hold at once.
      memory_mb: memory budget of "auto" per device, in 10^6 bytes.
      label_smoothing: a, in [0, 1).
      image_ids, text_ids: [N] int32; pairs with equal ids are false negatives and are left out.
      present: [N] bool; a pair with a missing image or text is left out of the loss.
      directions: weights of images among texts, and of texts among images, for "softmax".
      negatives: embeddings of M further texts that belong to no image, such as captions with
        swapped words; negatives_apply: [N, M], which of them each image is compared with. They need
        the dense implementation, and no label_smoothing.

    Returns:
      The losses [N] fp32 (undefined where a pair is not present), and a dict:
      `image_to_text_accuracy` and `text_to_image_accuracy` [N] bool (whether the query's own pair
      scores strictly above every other kept pair), and, given ids, the fp32 scalar `masked_pairs`
      (how many of the N * N pairs were left out).

    Raises:
      ValueError: shapes that do not pair up, an unknown kind or implementation, or a chunk_size or
        label_smoothing out of range.

    Source: Radford et al. 2021 (arXiv:2103.00020), fig. 3; Zhai et al. 2023 (arXiv:2303.15343),
    algorithm 1.
    """
    ids = (image_ids, text_ids)
    _check(image_embed, text_embed, kind, implementation, chunk_size, label_smoothing, ids, present)
    if negatives is not None:
        _check_negatives(implementation, label_smoothing)
        implementation = "dense"
        extra = {"negatives": (jnp.asarray(negatives).astype(jnp.float32), negatives_apply)}
    else:
        extra = {}
    if implementation == "auto":
        n, dim = image_embed.shape
        parts = batch_parts(jax.sharding.get_abstract_mesh())
        implementation = choose(held_bytes(n, dim, chunk_size, parts), memory_mb)
    as_float32 = lambda x: jnp.asarray(x).astype(jnp.float32)  # noqa: E731
    return IMPLEMENTATIONS[implementation](
        as_float32(image_embed),
        as_float32(text_embed),
        as_float32(logit_scale),
        as_float32(0.0 if logit_bias is None or kind == "softmax" else logit_bias),
        ids,
        present,
        kind=kind,
        chunk_size=chunk_size,
        label_smoothing=label_smoothing,
        directions=directions,
        **extra,
    )


def held_bytes(n: int, dim: int, chunk_size: int, devices: int) -> dict[str, int]:
    """Estimated peak memory per device of each form, forward and backward, in bytes.

    Counts three fp32 arrays of the size of the logits (logits, masks or weights, gradient), and the
    embeddings from other devices with their gradients.

    Args:
      n: pairs in the global batch; dim: D; devices: shards of the batch.
    """
    own = math.ceil(n / devices)
    chunk = math.ceil(min(chunk_size, n) / devices)
    return {
        "dense": 12 * own * n + 8 * n * dim,
        "chunked": 12 * chunk * n + 8 * n * dim,
        "ring": 12 * min(chunk_size, own) * own + 24 * own * dim,
    }


def choose(held: dict[str, int], memory_mb: float) -> str:
    """dense within the budget; otherwise chunked or ring, whichever needs less memory.

    Compiled for v5e:4x4 at N = 16,384, ring takes 0.9x and chunked 1.2x the cycles of dense; at
    4,096 dense takes the fewest. See experiments/benchmarks/loss_scaling.md.
    """
    if held["dense"] <= memory_mb * 1e6:
        return "dense"
    return min(("chunked", "ring"), key=held.get)


def dense(
    x,
    y,
    scale,
    bias,
    ids: Ids,
    present,
    *,
    kind,
    chunk_size,
    label_smoothing,
    directions,
    negatives=None,
):
    """The reference form of `contrastive_loss`, all logits at once; chunk_size is not used.

    Args:
      negatives: further texts [M, D], and the mask [N, M] of the images that they apply to.
    """
    del chunk_size
    n = x.shape[0]
    # On TPU and GPU the default precision would round the logits to 8 or 11 bits.
    logits = scale * jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST) + bias
    positives = jnp.diagonal(logits)
    index = jnp.arange(n)
    own = index[:, None] == index[None, :]
    negative = negative_pairs(index, index, ids, ids)
    pairs = jnp.asarray(n, jnp.float32)
    if present is not None:
        negative &= present[:, None] & present[None, :]
        pairs = jnp.maximum(present.sum(dtype=jnp.float32), 1.0)
    kept = own | negative
    others = jnp.where(negative, logits, -jnp.inf)
    texts = others  # what each image is compared with
    if negatives is not None:
        further = scale * jnp.matmul(x, negatives[0].T, precision=jax.lax.Precision.HIGHEST) + bias
        texts = jnp.concatenate([others, jnp.where(negatives[1], further, -jnp.inf)], 1)

    def directed(axis):  # 1: each image among the texts; 0: each text among the images
        # -log softmax of the positive, in a form that is accurate for confident positives.
        seen = texts if axis else others
        cross_entropy = jax.nn.softplus(jax.nn.logsumexp(seen, axis) - positives)
        return cross_entropy + label_smoothing * (positives - jnp.mean(logits, axis, where=kept))

    if kind == "softmax":
        losses = directions[0] * directed(1) + directions[1] * directed(0)
    else:
        # softplus(l) - t * l, in a form that is accurate for confident positives.
        signed = jnp.where(own, -logits, logits)
        terms = jax.nn.softplus(signed) - label_smoothing / 2 * signed
        losses = jnp.sum(terms, 1, where=kept)
        if negatives is not None:
            losses += jnp.sum(jax.nn.softplus(further), 1, where=negatives[1])

    metrics = {
        "image_to_text_accuracy": positives > others.max(1),
        "text_to_image_accuracy": positives > others.max(0),
    }
    if any(i is not None for i in ids):
        counts = jnp.sum(negative, 1, dtype=jnp.float32)
        missing = pairs - 1 - counts
        metrics["masked_pairs"] = jnp.sum(missing, where=present)
    return losses, metrics


# Every implementation takes the arguments of `dense`.
IMPLEMENTATIONS = {"dense": dense, "chunked": chunked, "ring": ring}


def _check_negatives(implementation: str, label_smoothing: float) -> None:
    if implementation not in ("auto", "dense") or label_smoothing:
        raise ValueError(
            f"contrastive_loss got negatives with implementation '{implementation}' and "
            f"label_smoothing {label_smoothing}: use 'dense' and 0."
        )


def _check(
    image_embed, text_embed, kind, implementation, chunk_size, label_smoothing, ids, present
):
    shapes = image_embed.shape, text_embed.shape
    if len(shapes[0]) != 2 or shapes[0] != shapes[1] or shapes[0][0] == 0:
        raise ValueError(
            f"contrastive_loss got image_embed {shapes[0]} and text_embed {shapes[1]}: both must "
            "be [N, D] with the same N > 0 and D."
        )
    if kind not in KINDS:
        raise ValueError(f"contrastive_loss has no kind '{kind}': use one of {KINDS}.")
    if implementation not in ("auto", *IMPLEMENTATIONS):
        raise ValueError(
            f"contrastive_loss has no implementation '{implementation}': use one of "
            f"{('auto', *IMPLEMENTATIONS)}."
        )
    if chunk_size < 1:
        raise ValueError(f"contrastive_loss got chunk_size {chunk_size}: use 1 or more rows.")
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            f"contrastive_loss got label_smoothing {label_smoothing}: use a value in [0, 1)."
        )
    for name, values in zip(("image_ids", "text_ids", "present"), (*ids, present), strict=True):
        if values is not None and values.shape != shapes[0][:1]:
            raise ValueError(
                f"contrastive_loss got {name} of shape {values.shape}: give one value for each of "
                f"the {shapes[0][0]} pairs."
            )
