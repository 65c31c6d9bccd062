"""The contrastive loss in blocks: linear memory, same value and gradients as the dense form.

A device computes the logits of its own images, one chunk at a time, with the texts that it holds,
and keeps running statistics per image (a row of the logits) and per text (a column). In `chunked`
it holds all texts. In `ring` each device starts with its shard of the texts and passes texts and
column statistics to the next device until every device has had every shard (as in ring attention,
Liu et al. 2023, arXiv:2310.01889; for this loss Inf-CL, Cheng et al. 2024, arXiv:2410.17243).

The backward pass recomputes the logits of each block: with G = d loss / d logits and scores
z = images @ texts.T, the gradients are scale * G @ texts, scale * G.T @ images, sum(G * z) and
sum(G). In the ring it sends the texts in the opposite direction, so that they and their gradients
end on the devices where they started.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax
from jax.sharding import PartitionSpec

from mmjax.losses.duplicates import Ids, negative_pairs


class _Options(NamedTuple):
    kind: str
    chunk_size: int
    label_smoothing: float
    directions: tuple[float, float]  # weights of rows and columns, for softmax
    axes: tuple[str, ...] = ()  # mesh axes along which the texts are passed
    devices: int = 1


class _Part(NamedTuple):
    """Texts, images in chunks ([n_chunks, C, ...]), or one chunk of images ([C, ...])."""

    embed: jax.Array
    index: jax.Array  # position in the batch
    ids: Ids
    present: jax.Array | None  # None: all are present


class _Side(NamedTuple):
    """Running statistics of the logits of every row, or of every column: [N]."""

    best: jax.Array  # largest logit of a negative
    total: jax.Array | None  # sum of exp(negative - shift); sigmoid: sum of a row's losses
    near: jax.Array | None  # the positive, up to rounding; shift = max(best, near)
    count: jax.Array | None  # number of negatives, given ids or presence
    logit_sum: jax.Array | None  # sum over the negatives, for label smoothing


class _Softmax(NamedTuple):
    """Softmax statistics of every row, or column, for the backward pass: [N]."""

    shift: jax.Array
    inverse: jax.Array  # 1 / sum of exp(logit - shift)
    smooth: jax.Array  # target probability of a negative


def chunked(x, y, scale, bias, ids: Ids, present, *, kind, chunk_size, label_smoothing, directions):
    """`contrastive_loss` with at most chunk_size x N logits in memory; reverse mode only.

    Arguments and results are those of `mmjax.losses.contrastive.dense`.
    """
    options = _Options(kind, chunk_size, label_smoothing, directions)
    return _loss(options, x, y, scale, bias, ids, present)


def ring(x, y, scale, bias, ids: Ids, present, *, kind, chunk_size, label_smoothing, directions):
    """`chunked` with the texts passed around the devices: chunk_size x N / devices logits on each.

    The devices are those of `jax.set_mesh`; with fewer than two it is `chunked`. The axis "tensor"
    is used too where it divides N, so that its devices share the work.

    Raises:
      ValueError: a batch that the mesh does not divide.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(axis for axis in mesh.axis_names if mesh.shape[axis] > 1)
    while len(axes) > 1 and x.shape[0] % math.prod(mesh.shape[axis] for axis in axes):
        axes = axes[:-1]
    devices = math.prod(mesh.shape[axis] for axis in axes)
    if x.shape[0] % devices:
        raise ValueError(
            f"The ring loss got {x.shape[0]} pairs for {devices} devices: use a multiple of "
            f"{devices}, or config.loss.implementation='chunked'."
        )
    options = _Options(kind, chunk_size, label_smoothing, directions, axes, devices)
    return _loss(options, x, y, scale, bias, ids, present)


def _on_devices(options, function, arguments, inputs, outputs):
    """Call `function` on each device's shard; "split" arrays are sharded along their first axis."""
    if options.devices == 1:
        return function(*arguments)
    specs = {"split": PartitionSpec(options.axes), "whole": PartitionSpec()}
    inputs, outputs = jax.tree.map(lambda kind: specs[kind], (inputs, outputs))
    return jax.shard_map(function, in_specs=inputs, out_specs=outputs, check_vma=False)(*arguments)


def _send(options, values, step=1):
    """Send every device's values to the next device (step 1) or to the previous one (-1)."""
    n = options.devices
    if n == 1:
        return values
    to = [(i, (i + step) % n) for i in range(n)]
    return jax.tree.map(lambda v: lax.ppermute(v, options.axes, to), values)


def _sum(options, values):
    return lax.psum(values, options.axes) if options.devices > 1 else values


def _owner(options, hop):
    """Index of the device whose texts this device holds after `hop` hops forward."""
    if options.devices == 1:
        return 0
    return (lax.axis_index(options.axes) - hop) % options.devices


def _chunks(array: jax.typing.ArrayLike, chunk_size: int) -> jax.Array:
    """[N, ...] -> [n_chunks, C, ...] with C <= chunk_size, padded with zeros where N is uneven.

    Chunk c holds the rows i with i % n_chunks == c, so every chunk has equally many rows on every
    device that the batch is sharded over, and no row moves.
    """
    n, *rest = array.shape
    count, size = _sizes(n, chunk_size)
    pad = [(0, count * size - n)] + [(0, 0)] * len(rest)
    return rearrange(jnp.pad(array, pad), "(size count) ... -> count size ...", count=count)


def _sizes(n: int, chunk_size: int) -> tuple[int, int]:
    """The number of chunks, and the number of rows per chunk."""
    count = math.ceil(n / chunk_size)
    return count, math.ceil(n / count)


def _unchunk(array: jax.Array, n: int) -> jax.Array:
    """The inverse of `_chunks`: [n_chunks, C, ...] -> [n, ...], the padding dropped."""
    return rearrange(array, "count size ... -> (size count) ...")[:n]


def _own_part(options, embed, ids, present, owner) -> _Part:
    n = embed.shape[0]
    return _Part(embed, owner * n + jnp.arange(n), ids, present)


def _in_chunks(options, x, ids, present) -> _Part:
    n = x.shape[0]
    if present is None and math.prod(_sizes(n, options.chunk_size)) > n:
        present = jnp.ones(n, bool)  # false on the padding
    rows = _own_part(options, x, ids, present, _owner(options, 0))
    return jax.tree.map(lambda a: _chunks(a, options.chunk_size), rows)


def _score(rows: _Part, texts: _Part, scale, bias):
    """Logits of a chunk and the texts, and the masks of positives and negatives: [C, N] each."""
    # On TPU and GPU the default precision would round the logits to 8 or 11 bits.
    logits = scale * jnp.matmul(rows.embed, texts.embed.T, precision=lax.Precision.HIGHEST) + bias
    own = rows.index[:, None] == texts.index[None, :]
    negative = negative_pairs(rows.index, texts.index, rows.ids, texts.ids)
    if rows.present is not None:
        negative &= rows.present[:, None]
        own &= rows.present[:, None]
    if texts.present is not None:
        negative &= texts.present[None, :]
    return logits, own, negative


def _add(side: _Side, logits, others, negative, axis) -> _Side:
    """The statistics updated with more logits, which are reduced over `axis`."""
    best = jnp.maximum(side.best, others.max(axis))
    total, count, logit_sum = side.total, side.count, side.logit_sum
    if side.near is not None:
        old, shift = jnp.maximum(side.best, side.near), jnp.maximum(best, side.near)
        new = jnp.exp(others - jnp.expand_dims(shift, axis)).sum(axis)
        total = side.total * jnp.exp(old - shift) + new
    if count is not None:
        count += jnp.sum(negative, axis, dtype=jnp.float32)
    if logit_sum is not None:
        logit_sum += jnp.sum(logits, axis, where=negative)
    return _Side(best, total, side.near, count, logit_sum)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(options, x, y, scale, bias, ids, present):
    return _forward(options, x, y, scale, bias, ids, present)[0]


def _forward(options, x, y, scale, bias, ids, present):
    outputs, residuals = _on_devices(
        options,
        partial(_forward_part, options),
        (x, y, scale, bias, ids, present),
        ("split", "split", "whole", "whole", "split", "split"),
        (("split", "split", "whole"), "split"),
    )
    losses, correct, masked_pairs = outputs
    metrics = dict(zip(("image_to_text_accuracy", "text_to_image_accuracy"), correct, strict=True))
    if masked_pairs is not None:
        metrics["masked_pairs"] = masked_pairs
    return (losses, metrics), (x, scale, bias, ids, present, residuals)


def _forward_part(options, x, y, scale, bias, ids, present):
    n, smoothing = x.shape[0], options.label_smoothing
    softmax = options.kind == "softmax"
    chunks = _in_chunks(options, x, ids, present)
    counted = present is not None or any(i is not None for i in ids)

    zeros, near = jnp.zeros(n), scale * jnp.sum(x * y, axis=1) + bias
    columns = _Side(
        jnp.full(n, -jnp.inf),
        zeros if softmax else None,
        near if softmax else None,
        zeros if counted else None,
        zeros if smoothing and softmax else None,
    )
    per_row = columns if softmax else columns._replace(total=zeros)
    per_row = jax.tree.map(lambda a: _chunks(a, options.chunk_size), (per_row, zeros))

    def visit(texts, columns, per_row):
        """Update the statistics with the logits of all chunks and the texts on this device."""

        def body(columns: _Side, chunk):
            rows, (row, positives) = chunk
            logits, own, negative = _score(rows, texts, scale, bias)
            # Taken from the logits, so that exact ties with other pairs are detected.
            place = rows.index - texts.index[0]
            own_logits = jnp.take_along_axis(logits, place[:, None], 1, mode="clip")[:, 0]
            positives = jnp.where((place >= 0) & (place < n), own_logits, positives)
            others = jnp.where(negative, logits, -jnp.inf)
            row = _add(row, logits, others, negative, 1)
            if not softmax:
                signed = jnp.where(own, -logits, logits)
                terms = jax.nn.softplus(signed) - smoothing / 2 * signed
                row = row._replace(total=row.total + jnp.sum(terms, 1, where=own | negative))
            return _add(columns, logits, others, negative, 0), (row, positives)

        return lax.scan(body, columns, (chunks, per_row))

    def hop(carry, number):
        embed, ids, present, columns, per_row = carry
        following = _send(options, (embed, ids, present))
        texts = _own_part(options, embed, ids, present, _owner(options, number))
        columns, per_row = visit(texts, columns, per_row)
        return (*following, _send(options, columns), per_row), None

    hops = options.devices - 1
    carry = (y, ids, present, columns, per_row)
    carry, _ = lax.scan(hop, carry, jnp.arange(hops)) if hops else (carry, None)
    *held, columns, per_row = carry
    texts = _own_part(options, *held, _owner(options, hops))
    columns, per_row = visit(texts, columns, per_row)
    columns = _send(options, columns)
    rows, positives = jax.tree.map(lambda a: _unchunk(a, n), per_row)

    weight = jnp.ones(n) if present is None else present.astype(jnp.float32)
    pairs = jnp.maximum(_sum(options, weight.sum()), 1.0)
    correct = (positives > rows.best, positives > columns.best)
    masked_pairs = None
    if any(i is not None for i in ids):
        masked_pairs = _sum(options, jnp.sum((pairs - 1 - rows.count) * weight))
    if not softmax:
        own_grad = smoothing / 2 - jax.nn.sigmoid(-positives)
        return (rows.total, correct, masked_pairs), (held, own_grad, None, None)
    row_loss, row_own, of_rows = _finish(rows, positives, pairs, smoothing)
    column_loss, column_own, of_columns = _finish(columns, positives, pairs, smoothing)
    by_row, by_column = options.directions
    residuals = held, by_row * row_own + by_column * column_own, of_rows, of_columns
    return (by_row * row_loss + by_column * column_loss, correct, masked_pairs), residuals


def _finish(side: _Side, positives, pairs, smoothing):
    """One direction's softmax losses, their gradients w.r.t. the positives, and residuals."""
    shift = jnp.maximum(side.best, side.near)
    # log sum exp(negatives) - positive: accurate for confident positives.
    margins = jnp.log(side.total) + (shift - positives)
    count = pairs if side.count is None else side.count + 1
    losses = jax.nn.softplus(margins)
    if smoothing:
        losses += smoothing * (positives - (side.logit_sum + positives) / count)
    own_grad = smoothing - smoothing / count - jax.nn.sigmoid(margins)
    inverse = 1 / (side.total + jnp.exp(positives - shift))
    smooth = jnp.broadcast_to(smoothing / count, shift.shape)
    return losses, own_grad, _Softmax(shift, inverse, smooth)


def _backward(options, residuals, cotangents):
    x, scale, bias, ids, present, of_forward = residuals
    upstream = cotangents[0]  # [N], of the losses; the metrics are not differentiated
    if present is not None:
        upstream = jnp.where(present, upstream, 0.0)
    grad_x, grad_y, grad_scale, grad_bias = _on_devices(
        options,
        partial(_backward_part, options),
        (x, scale, bias, ids, present, of_forward, upstream),
        ("split", "whole", "whole", "split", "split", "split", "split"),
        ("split", "split", "whole", "whole"),
    )
    nothing = jax.tree.map(lambda _: None, (ids, present))
    return scale * grad_x, scale * grad_y, grad_scale, grad_bias, *nothing


def _backward_part(options, x, scale, bias, ids, present, of_forward, upstream):
    held, own_grad, of_rows, of_columns = of_forward
    own_grad = own_grad * upstream
    if options.kind == "softmax":  # the gradient of each row and column times its upstream gradient
        of_rows, of_columns = (
            side._replace(inverse=side.inverse * upstream, smooth=side.smooth * upstream)
            for side in (of_rows, of_columns)
        )
    n, hops = x.shape[0], options.devices - 1
    chunks = _in_chunks(options, x, ids, present)
    per_row = jax.tree.map(lambda a: _chunks(a, options.chunk_size), (own_grad, of_rows, upstream))

    def visit(texts, of_columns, of_images):
        def body(grad_y, chunk):
            rows, (own_grad, of_rows, upstream), (grad_x, grad_bias) = chunk
            logits, own, negative = _score(rows, texts, scale, bias)
            if options.kind == "softmax":
                row = _Softmax(*(a[:, None] for a in of_rows))
                column = _Softmax(*(a[None, :] for a in of_columns))
                by_row, by_column = options.directions
                grad = by_row * (jnp.exp(logits - row.shift) * row.inverse - row.smooth)
                grad += by_column * (
                    jnp.exp(logits - column.shift) * column.inverse - column.smooth
                )
            else:
                grad = jax.nn.sigmoid(logits) - options.label_smoothing / 2
                grad *= upstream[:, None]
            grad = jnp.where(own, own_grad[:, None], jnp.where(negative, grad, 0.0))
            grad_x += jnp.matmul(grad, texts.embed, precision=lax.Precision.HIGHEST)
            grad_y += jnp.matmul(grad.T, rows.embed, precision=lax.Precision.HIGHEST)
            return grad_y, (grad_x, grad_bias + grad.sum(1))

        return lax.scan(body, jnp.zeros_like(x), (chunks, per_row, of_images))

    def arrive(carry, number):
        """Receive the text gradients accumulated so far, and add this device's part."""
        held, of_columns, grad_y, of_images = carry
        grad_y = _send(options, grad_y, -1)
        texts = _own_part(options, *held, _owner(options, hops - number))
        of_texts, of_images = visit(texts, of_columns, of_images)
        return grad_y + of_texts, of_images

    def hop(carry, number):
        following = _send(options, carry[:2], -1)
        return (*following, *arrive(carry, number)), None

    of_images = jax.tree.map(
        lambda a: _chunks(a, options.chunk_size), (jnp.zeros_like(x), jnp.zeros(n))
    )
    carry = (held, _send(options, of_columns, -1), jnp.zeros_like(x), of_images)
    carry, _ = lax.scan(hop, carry, jnp.arange(hops)) if hops else (carry, None)
    grad_y, of_images = arrive(carry, hops)
    grad_x, grad_bias = jax.tree.map(lambda a: _unchunk(a, n), of_images)
    scalars = _sum(options, (jnp.sum(grad_x * x), jnp.sum(grad_bias)))
    return grad_x, grad_y, *scalars


_loss.defvjp(_forward, _backward)
