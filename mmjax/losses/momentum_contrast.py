"""Image-text contrast with a momentum teacher's keys: this batch's and a queue of earlier ones.

Keys are a dict of arrays with N rows; the queue is such a dict in the memory of a system:

    image, text         [N, D] fp32, embeddings of unit length, from the teacher
    image_id, text_id   [N] int32; keys with an equal id are no negatives of each other; -1: none
    valid               [N] bool; false in a slot that is still empty, or for an incomplete pair
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, ArrayLike, Bool, Float, Int

Keys = Mapping[str, jax.Array]
_OTHER = {"image": "text", "text": "image"}
_NOTHING = -1e30  # a finite logit, so that no gradient is NaN


class _Sums(NamedTuple):
    """What the loss needs to know of a set of negatives, per query: [B].

    `of_student`, `of_teacher`: log of the summed exponentials of the student's and of the teacher's
    logits; `mean`: of the student's logits, weighted by the teacher's softmax; `best`: the largest
    logit of the student.
    """

    of_student: jax.Array
    of_teacher: jax.Array
    mean: jax.Array
    best: jax.Array


def empty_queue(size: int, dim: int) -> dict[str, jax.Array]:
    """Keys of `size` empty slots."""
    return {
        "image": jnp.zeros((size, dim)),
        "text": jnp.zeros((size, dim)),
        "image_id": jnp.zeros(size, jnp.int32),
        "text_id": jnp.zeros(size, jnp.int32),
        "valid": jnp.zeros(size, bool),
    }


def batch_keys(
    image: Float[Array | np.ndarray, "b d"],
    text: Float[Array | np.ndarray, "b d"],
    image_id: Int[Array | np.ndarray, " b"] | None = None,
    text_id: Int[Array | np.ndarray, " b"] | None = None,
    valid: Bool[Array | np.ndarray, " b"] | None = None,
) -> dict[str, jax.Array]:
    """Keys of a batch. Ids may be any int32, such as hashes; their sign bit is dropped."""
    rows = len(image)

    def ids(given):
        if given is None:
            return jnp.full(rows, -1, jnp.int32)
        return jnp.asarray(given, jnp.int32) & 0x7FFFFFFF

    return {
        "image": jnp.asarray(image, jnp.float32),
        "text": jnp.asarray(text, jnp.float32),
        "image_id": ids(image_id),
        "text_id": ids(text_id),
        "valid": jnp.ones(rows, bool) if valid is None else jnp.asarray(valid),
    }


def push(queue: Keys, new: Keys) -> dict[str, jax.Array]:
    """The queue with new keys at its front and the oldest removed; any number of them."""
    size = len(queue["valid"])
    return {k: jnp.concatenate([new[k], old])[:size] for k, old in queue.items()}


def queue_memory(size: int, dim: int) -> dict[str, dict[str, Keys]]:
    """An empty queue as the memory of a system: one level deeper than its collection, where Linen
    would take `image` for the name of a submodule."""
    return {"queue": {"keys": empty_queue(size, dim)}}


def queue_of(memory: Mapping[str, Mapping[str, Keys]]) -> Keys | None:
    """The queue in a system's memory; None: it has none."""
    return memory.get("queue", {}).get("keys")


def push_to(memory: Mapping[str, Mapping[str, Keys]], new: Keys) -> dict[str, dict[str, Keys]]:
    """The memory with new keys at the front of its queue."""
    return {"queue": {"keys": push(queue_of(memory), new)}}


def momentum_contrast(
    student: Mapping[str, Float[ArrayLike, "b d"]],
    teacher: Keys,
    queue: Keys | None,
    logit_scale: Float[ArrayLike, ""],
    alpha: Float[ArrayLike, ""] | float,
    chunk_size: int = 0,
) -> tuple[Float[Array, " b"], dict[str, Bool[Array, " b"]]]:
    """Each pair's cross-entropy with soft targets, the mean over both directions.

    A query is the student's embedding, with logits s_j = scale · <query, key_j>; t_j are those of
    the teacher's embedding of the same example. The target is (1 - alpha) · onehot + alpha ·
    softmax(t). Keys of the batch or the queue with the id of the query are left out of both.

    Args:
      student: "image" and "text" [B, D] of unit length.
      teacher: keys of the same batch; gradients do not reach them.
      queue: keys of earlier batches; None: no queue.
      alpha: weight of the teacher's distribution, 0 to 1.
      chunk_size: the queue's keys are compared in chunks of that many, whose logits are recomputed
        in the backward pass; 0: all at once.

    Returns:
      The losses [B] (undefined where `teacher["valid"]` is false), and `image_to_text_accuracy`,
      `text_to_image_accuracy` [B]: whether the own key scores above all others.

    Source: ALBEF, Li et al. 2021 (arXiv 2107.07651), eq. 1, 2 and 6.
    """
    teacher = {k: jax.lax.stop_gradient(x) for k, x in teacher.items()}
    scale = logit_scale.astype(jnp.float32)
    losses, metrics = [], {}
    for query, key in _OTHER.items():
        x, y = student[query].astype(jnp.float32), teacher[query]
        own = scale * jnp.sum(x * teacher[key], -1)
        own_teacher = jax.lax.stop_gradient(scale) * jnp.sum(y * teacher[key], -1)
        rest = _block(x, y, scale, teacher, teacher, key, jnp.eye(len(x), dtype=bool))
        if queue is not None:
            rest = _add(rest, _of_queue(x, y, scale, teacher, queue, key, chunk_size))
        # All softmax terms relative to the own key: accurate for confident queries.
        cross_entropy = jax.nn.softplus(rest.of_student - own)
        weight = jax.nn.sigmoid(rest.of_teacher - own_teacher)  # the teacher's, of all negatives
        losses.append(cross_entropy + alpha * weight * (own - rest.mean))
        metrics[f"{query}_to_{key}_accuracy"] = own > rest.best
    return (losses[0] + losses[1]) / 2, metrics


def _block(x, y, scale, batch: Keys, keys: Keys, kind: str, own: jax.Array | None = None) -> _Sums:
    """The sums over these keys; `own` [B, N] bool: the pairs that are no negatives anyway."""
    kept = jnp.broadcast_to(keys["valid"][None], (len(x), len(keys["valid"])))
    for name in ("image_id", "text_id"):
        mine = batch[name][:, None]
        kept &= (mine != keys[name][None]) | (mine < 0)
    if own is not None:
        kept &= ~own

    def logits(queries, scale):
        precise = jnp.matmul(queries, keys[kind].T, precision=jax.lax.Precision.HIGHEST)
        return jnp.where(kept, scale * precise, _NOTHING)

    of_student, of_teacher = logits(x, scale), logits(y, jax.lax.stop_gradient(scale))
    weights = jax.nn.softmax(of_teacher, -1)
    return _Sums(
        jax.nn.logsumexp(of_student, -1),
        jax.nn.logsumexp(of_teacher, -1),
        jnp.sum(weights * of_student, -1, where=kept),
        jax.lax.stop_gradient(of_student.max(-1)),
    )


def _add(a: _Sums, b: _Sums) -> _Sums:
    """The sums over two sets of keys."""
    part = jax.nn.sigmoid(b.of_teacher - a.of_teacher)
    return _Sums(
        jnp.logaddexp(a.of_student, b.of_student),
        jnp.logaddexp(a.of_teacher, b.of_teacher),
        a.mean + part * (b.mean - a.mean),
        jnp.maximum(a.best, b.best),
    )


def _of_queue(x, y, scale, batch: Keys, queue: Keys, kind: str, chunk_size: int) -> _Sums:
    """The sums over the queue."""
    size = len(queue["valid"])
    queue = {k: queue[k] for k in (kind, "image_id", "text_id", "valid")}
    if not 0 < chunk_size < size:
        return _block(x, y, scale, batch, queue, kind)
    chunks = -(-size // chunk_size)
    room = chunks * chunk_size - size  # padded with keys that are not valid

    def split(array):
        padded = jnp.pad(array, ((0, room), *((0, 0),) * (array.ndim - 1)))
        return rearrange(padded, "(n c) ... -> n c ...", n=chunks)

    @jax.checkpoint
    def step(sums, chunk):
        return _add(sums, _block(x, y, scale, batch, chunk, kind)), None

    nothing = jnp.full(len(x), _NOTHING)
    start = _Sums(nothing, nothing, jnp.zeros(len(x)), nothing)
    return jax.lax.scan(step, start, {k: split(a) for k, a in queue.items()})[0]
