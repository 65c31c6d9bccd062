"""Simulated clicks for SAM's interactive training and evaluation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange

NOISE = 0.1  # of a box's coordinates, as a fraction of its sides
MOST = 20  # pixels of this noise


def shrink(masks: jax.Array, side: int) -> jax.Array:
    """Masks [..., H, W] bool at a lower resolution, [..., side, side]: true where at least half of
    the pixels are.

    Raises:
      ValueError: sides that are no multiple of `side`.
    """
    height, width = masks.shape[-2:]
    if height % side or width % side:
        raise ValueError(
            f"The masks are {height}x{width}, which is no multiple of {side}x{side}, the "
            "resolution of the mask decoder: resize and pad them with their images."
        )
    x = jnp.asarray(masks, jnp.float32)
    x = rearrange(x, "... (h p) (w q) -> ... h p w q", h=side, w=side)
    return x.mean((-3, -1)) >= 0.5


def uniform_click(region: jax.Array, draw: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A pixel of each region, uniformly.

    Args:
      region: [..., h, w] bool; draw: [...], uniform in 0..1, which decides.

    Returns:
      the row and column of the pixel [...] int32, 0 for an empty region; whether there is any.
    """
    flat = rearrange(region, "... h w -> ... (h w)")
    counts = jnp.cumsum(flat.astype(jnp.int32), axis=-1)
    total = counts[..., -1]
    # Rounded, draw * total may be total.
    wanted = jnp.minimum((draw * total.astype(jnp.float32)).astype(jnp.int32), total - 1)
    at = (counts > wanted[..., None]).argmax(-1).astype(jnp.int32)
    at = jnp.where(total > 0, at, 0)
    return at // region.shape[-1], at % region.shape[-1], total > 0


def central_click(region: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """As `uniform_click`: the pixel of each region [..., h, w] that is farthest from its border.

    Distances are to the nearest pixel outside, in king's moves; the border of the image is outside.
    Of several farthest pixels it is the one nearest to their center of mass.

    Source: Kirillov et al. 2023 (arXiv 2304.02643), appendix D.1, for the farthest pixel; the
    distance and the choice among equals are ours.
    """
    height, width = region.shape[-2:]

    def erode(_, found):
        depth, inner = found
        depth = depth + inner.astype(jnp.int32)
        for axis in (-2, -1):
            inner = _both_neighbors(inner, axis)
        return depth, inner

    depth = jnp.zeros(region.shape, jnp.int32)
    steps = (min(height, width) + 1) // 2
    depth, _ = jax.lax.fori_loop(0, steps, erode, (depth, region))
    farthest = region & (depth == depth.max((-2, -1), keepdims=True))
    count = jnp.maximum(farthest.sum((-2, -1), keepdims=True), 1).astype(jnp.float32)
    shape = (1,) * (region.ndim - 2)
    rows = jnp.arange(height, dtype=jnp.float32).reshape(*shape, -1, 1)
    columns = jnp.arange(width, dtype=jnp.float32).reshape(*shape, 1, -1)

    def apart(at):
        center = jnp.where(farthest, at, 0.0).sum((-2, -1), keepdims=True) / count
        return jnp.square(at - center)

    apart = jnp.where(farthest, apart(rows) + apart(columns), jnp.inf)
    at = rearrange(apart, "... h w -> ... (h w)").argmin(-1).astype(jnp.int32)
    return at // width, at % width, region.any((-2, -1))


def _both_neighbors(x: jax.Array, axis: int) -> jax.Array:
    """Where a pixel and both of its neighbors along an axis are true."""
    pad = [(0, 0)] * x.ndim
    pad[axis] = (1, 1)
    n = x.shape[axis]
    wide = jnp.pad(x, pad)
    before, after = (jax.lax.slice_in_dim(wide, i, i + n, axis=axis) for i in (0, 2))
    return x & before & after


def noisy_boxes(boxes: jax.Array, noise: jax.Array, pixels: int) -> jax.Array:
    """Boxes [..., 4] in 0..1 with noise, as an imprecise user draws them.

    Args:
      noise: [..., 4], standard normal.
      pixels: side of the image.

    Source: Kirillov et al. 2023 (arXiv 2304.02643), appendix A, "Training algorithm": a standard
    deviation of 10 % of the box's side, at most 20 pixels.
    """
    sides = jnp.concatenate([boxes[..., 2:] - boxes[..., :2]] * 2, axis=-1)
    moved = boxes + jnp.clip(NOISE * noise * sides, -MOST / pixels, MOST / pixels)
    moved = jnp.clip(moved, 0.0, 1.0)
    low, high = moved[..., :2], moved[..., 2:]
    return jnp.concatenate([jnp.minimum(low, high), jnp.maximum(low, high)], axis=-1)


Click = Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]]


def error_click(
    logits: jax.Array, target: jax.Array, click: Click
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A point where a mask is wrong: (x, y) [..., 2] in 0..1, whether the object is there [...]
    int32, and whether the mask is wrong anywhere [...].

    Args:
      logits: [..., h, w]; target: [..., h, w] bool.
      click: how a pixel is chosen from the wrong ones.
    """
    row, column, wrong = click((logits > 0) ^ target)
    flat = rearrange(target, "... h w -> ... (h w)")
    height, width = target.shape[-2:]
    label = jnp.take_along_axis(flat, (row * width + column)[..., None], -1)[..., 0]
    point = (column.astype(jnp.float32) + 0.5) / width, (row.astype(jnp.float32) + 0.5) / height
    return jnp.stack(point, axis=-1), label.astype(jnp.int32), wrong
