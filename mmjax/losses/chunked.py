"""The chunked contrastive loss: linear memory, the dense form's value and gradients.

The forward pass takes the images a chunk at a time, scores the chunk against all texts, and keeps
a few numbers per image (a row of the logits) and per text (a column). The backward pass computes
each chunk's logits again: with G = d loss / d logits and scores z = images @ texts.T, the gradients
are scale * G @ texts, scale * G.T @ images, sum(G * z) and sum(G).
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mmjax.losses.duplicates import Ids, negative_pairs


class _Options(NamedTuple):
    kind: str
    chunk_size: int
    label_smoothing: float


class _Rows(NamedTuple):
    """Images in chunks ([n_chunks, C, ...]), or one chunk of them ([C, ...])."""

    embed: jax.Array
    index: jax.Array  # place in the batch; N on the rows that pad the last places
    ids: Ids


class _Side(NamedTuple):
    """What the forward pass learns of the negatives of every row, or of every column: [N]."""

    best: jax.Array  # the highest logit
    total: jax.Array  # sum of exp(logit - shift), shift = max(best, positive); or a row's loss
    count: jax.Array | None = None  # given ids
    logit_sum: jax.Array | None = None  # for label smoothing


class _Softmax(NamedTuple):
    """What the backward pass needs of every row's, or column's, softmax and targets: [N]."""

    shift: jax.Array
    inverse: jax.Array  # 1 / sum of exp(logit - shift)
    smooth: jax.Array  # the target of a negative


def chunked(x, y, scale, bias, ids: Ids, *, kind, chunk_size, label_smoothing):
    """`contrastive_loss` that never holds more than chunk_size x N logits; reverse mode only.

    Arguments and results are those of `mmjax.losses.contrastive.dense`.
    """
    options = _Options(kind, chunk_size, label_smoothing)
    return _loss(options, x, y, scale, bias, ids)


def _chunks(array: jax.Array, chunk_size: int, fill=0) -> jax.Array:
    """[N, ...] -> [n_chunks, C, ...] with C <= chunk_size, padded with `fill` where N is uneven.

    Chunk c holds the rows i with i % n_chunks == c. Every chunk thus draws equally on every device
    that the batch is split over, and the rows stay where they are.
    """
    n, *rest = array.shape
    count = math.ceil(n / chunk_size)
    size = math.ceil(n / count)
    pad = [(0, count * size - n)] + [(0, 0)] * len(rest)
    padded = jnp.pad(array, pad, constant_values=fill)
    return padded.reshape(size, count, *rest).swapaxes(0, 1)


def _unchunk(array: jax.Array, n: int) -> jax.Array:
    """The inverse of `_chunks`: [n_chunks, C, ...] -> [n, ...], the padding dropped."""
    count, size, *rest = array.shape
    return array.swapaxes(0, 1).reshape(count * size, *rest)[:n]


def _in_chunks(x, ids, chunk_size) -> _Rows:
    n = x.shape[0]
    return _Rows(
        _chunks(x, chunk_size),
        _chunks(jnp.arange(n), chunk_size, fill=n),
        jax.tree.map(lambda i: _chunks(i, chunk_size), ids),
    )


def _score(rows: _Rows, y, scale, bias, ids, padded):
    """A chunk's logits, which of them lie on the diagonal, and which are negatives: [C, N] each."""
    # On TPU and GPU the default precision would round the logits to 8 or 11 bits.
    logits = scale * jnp.matmul(rows.embed, y.T, precision=lax.Precision.HIGHEST) + bias
    columns = jnp.arange(y.shape[0])
    own = rows.index[:, None] == columns[None, :]
    negative = negative_pairs(rows.index, columns, rows.ids, ids)
    if padded:
        negative &= rows.index[:, None] < len(columns)
    return logits, own, negative


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(options, x, y, scale, bias, ids):
    return _forward(options, x, y, scale, bias, ids)[0]


def _forward(options, x, y, scale, bias, ids):
    n = x.shape[0]
    smoothing = options.label_smoothing
    chunks = _in_chunks(x, ids, options.chunk_size)
    padded = chunks.index.size > n
    has_ids = any(i is not None for i in ids)
    # The running maximum of a column starts here; as a shift it need not be exact.
    near_positives = scale * jnp.sum(x * y, axis=1) + bias

    def body(columns: _Side, rows: _Rows):
        logits, own, negative = _score(rows, y, scale, bias, ids, padded)
        # Read from the logits, so that an exact tie with another pair is seen as one.
        positives = jnp.take_along_axis(logits, rows.index[:, None], 1, mode="clip")[:, 0]
        others = jnp.where(negative, logits, -jnp.inf)
        row = _Side(others.max(1), 0.0)
        column = columns._replace(best=jnp.maximum(columns.best, others.max(0)))
        if options.kind == "softmax":
            shift = jnp.maximum(row.best, positives)[:, None]
            row = row._replace(total=jnp.exp(others - shift).sum(1))
            old_shift = jnp.maximum(columns.best, near_positives)
            shift = jnp.maximum(column.best, near_positives)
            total = columns.total * jnp.exp(old_shift - shift)
            column = column._replace(total=total + jnp.exp(others - shift[None, :]).sum(0))
        else:
            signed = jnp.where(own, -logits, logits)
            terms = jax.nn.softplus(signed) - smoothing / 2 * signed
            row = row._replace(total=jnp.sum(terms, 1, where=own | negative))
        if has_ids:
            counts = [jnp.sum(negative, axis, dtype=jnp.float32) for axis in (0, 1)]
            column = column._replace(count=columns.count + counts[0])
            row = row._replace(count=counts[1])
        if smoothing:
            sums = [jnp.sum(logits, axis, where=negative) for axis in (0, 1)]
            column = column._replace(logit_sum=columns.logit_sum + sums[0])
            row = row._replace(logit_sum=sums[1])
        return column, (row, positives)

    zeros = jnp.zeros(n)
    start = _Side(
        jnp.full(n, -jnp.inf), zeros, zeros if has_ids else None, zeros if smoothing else None
    )
    columns, per_row = lax.scan(body, start, chunks)
    rows, positives = jax.tree.map(lambda a: _unchunk(a, n), per_row)

    metrics = {
        "image_to_text_accuracy": jnp.mean(positives > rows.best, dtype=jnp.float32),
        "text_to_image_accuracy": jnp.mean(positives > columns.best, dtype=jnp.float32),
    }
    if has_ids:
        metrics["masked_pairs"] = jnp.sum(n - 1 - rows.count)
    if options.kind == "sigmoid":
        own_grad = smoothing / 2 - jax.nn.sigmoid(-positives)
        return (rows.total.sum() / n, metrics), (x, y, scale, bias, ids, own_grad, None, None)
    row_loss, row_own, of_rows = _finish(rows, positives, positives, smoothing)
    column_loss, column_own, of_columns = _finish(columns, positives, near_positives, smoothing)
    residuals = (x, y, scale, bias, ids, (row_own + column_own) / 2, of_rows, of_columns)
    return ((row_loss + column_loss) / 2, metrics), residuals


def _finish(side: _Side, positives, shift, smoothing):
    """One direction's softmax loss, its gradient to the positives, and what backward needs."""
    shift = jnp.maximum(side.best, shift)
    # log sum exp(negatives) - positive: a confident positive loses no digits.
    margins = jnp.log(side.total) + (shift - positives)
    count = jnp.full_like(positives, len(positives)) if side.count is None else side.count + 1
    losses = jax.nn.softplus(margins)
    if smoothing:
        losses += smoothing * (positives - (side.logit_sum + positives) / count)
    own_grad = smoothing - smoothing / count - jax.nn.sigmoid(margins)
    inverse = 1 / (side.total + jnp.exp(positives - shift))
    return losses.mean(), own_grad, _Softmax(shift, inverse, smoothing / count)


def _backward(options, residuals, cotangents):
    x, y, scale, bias, ids, own_grad, of_rows, of_columns = residuals
    n = x.shape[0]
    chunks = _in_chunks(x, ids, options.chunk_size)
    padded = chunks.index.size > n
    per_row = jax.tree.map(lambda a: _chunks(a, options.chunk_size), (own_grad, of_rows))

    def body(grad_y, chunk):
        rows, (own_grad, of_rows) = chunk
        logits, own, negative = _score(rows, y, scale, bias, ids, padded)
        if options.kind == "softmax":
            row = _Softmax(*(a[:, None] for a in of_rows))
            column = _Softmax(*(a[None, :] for a in of_columns))
            grad = jnp.exp(logits - row.shift) * row.inverse - row.smooth
            grad += jnp.exp(logits - column.shift) * column.inverse - column.smooth
            grad /= 2
        else:
            grad = jax.nn.sigmoid(logits) - options.label_smoothing / 2
        grad = jnp.where(own, own_grad[:, None], jnp.where(negative, grad, 0.0))
        of_images = jnp.matmul(grad, y, precision=lax.Precision.HIGHEST)
        grad_y += jnp.matmul(grad.T, rows.embed, precision=lax.Precision.HIGHEST)
        return grad_y, (of_images, grad.sum(1))

    grad_y, of_images = lax.scan(body, jnp.zeros_like(y), (chunks, per_row))
    grad_x, grad_bias = jax.tree.map(lambda a: _unchunk(a, n), of_images)
    weight = cotangents[0] / n  # the metrics are not differentiated
    return (
        weight * scale * grad_x,
        weight * scale * grad_y,
        weight * jnp.sum(grad_x * x),
        weight * jnp.sum(grad_bias),
        jax.tree.map(lambda _: None, ids),
    )


_loss.defvjp(_forward, _backward)
