"""Masks as run-length encodings (RLE) of their columns, as in COCO's annotations.

A mask `[H, W]` is read column by column; `counts` are the lengths of its runs, the first of zeros
(perhaps 0). Numbers equal those of pycocotools 2.0.11, crowd regions and rounding included.

Source: cocodataset/cocoapi, common/maskApi.c.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

MAX_OUTLINE = 1_000_000  # pixels along a polygon: it is drawn with five points for each


class Rle(NamedTuple):
    """A mask: its height and width in pixels, and the lengths of its runs (int64)."""

    height: int
    width: int
    counts: np.ndarray


def encode(mask: np.ndarray) -> Rle:
    """The RLE of a mask `[H, W]` bool."""
    height, width = mask.shape
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = 1 + np.flatnonzero(flat[1:] != flat[:-1])
    starts = [0] if len(flat) and flat[0] else []
    return _of_changes(height, width, np.concatenate([starts, changes]))


def decode(rle: Rle) -> np.ndarray:
    """The mask `[H, W]` bool."""
    flat = np.repeat(np.arange(len(rle.counts)) % 2 == 1, rle.counts)
    return flat.reshape(rle.width, rle.height).T


def _of_changes(height: int, width: int, places: np.ndarray) -> Rle:
    """From the sorted places in the columns where the value changes."""
    bounds = np.concatenate([[0], places, [height * width]]).astype(np.int64)
    return Rle(height, width, np.diff(bounds))


def changes(rle: Rle) -> np.ndarray:
    """The places where the value changes: begin and end of each run of ones, alternately."""
    ends = np.cumsum(rle.counts)
    return ends[: len(ends) // 2 * 2] if len(ends) % 2 == 0 else ends[:-1]


def area(rle: Rle) -> int:
    """The number of ones."""
    return int(rle.counts[1::2].sum())


def box(rle: Rle) -> np.ndarray:
    """The smallest box around the ones, (x, y, width, height) in pixels; zeros if there is none."""
    bounds = changes(rle)
    starts, ends = bounds[::2], bounds[1::2] - 1
    kept = ends >= starts
    starts, ends = starts[kept], ends[kept]
    if not len(starts):
        return np.zeros(4)
    left, right = starts[0] // rle.height, ends[-1] // rle.height
    if np.any(starts // rle.height != ends // rle.height):  # a run over a column's end
        top, bottom = 0, rle.height - 1
    else:
        top, bottom = (starts % rle.height).min(), (ends % rle.height).max()
    return np.asarray([left, top, right - left + 1, bottom - top + 1], np.float64)


def merge(rles: Sequence[Rle], intersect: bool = False) -> Rle:
    """The union of masks of one size, or their intersection.

    Raises:
      ValueError: masks of different sizes, or none.
    """
    sizes = {rle[:2] for rle in rles}
    if len(sizes) != 1:
        raise ValueError(f"masks of the sizes {sorted(sizes)} cannot be merged: give some of one")
    ((height, width),) = sizes
    bounds = [changes(rle) for rle in rles]
    places = np.concatenate(bounds)
    step = np.concatenate([1 - 2 * (np.arange(len(b)) % 2) for b in bounds])
    order = np.argsort(places, kind="stable")
    places, covered = places[order], np.cumsum(step[order])
    last = np.append(places[1:] != places[:-1], True)[: len(places)]
    inside = covered[last] >= (len(rles) if intersect else 1)
    changed = inside != np.concatenate([[False], inside[:-1]])
    changed_places = places[last][changed]
    return _of_changes(height, width, changed_places[changed_places < height * width])


def intersections(rles: Sequence[Rle], other: Rle) -> np.ndarray:
    """`[N]`: the number of pixels that each of N masks has in common with another one."""
    if not rles:
        return np.zeros(0)
    own = [changes(rle) for rle in rles]
    bounds = changes(other)
    # The ones of `other` before a place: piecewise linear in the place.
    before = np.cumsum(np.diff(bounds, prepend=0) * (np.arange(len(bounds)) % 2))
    places = np.concatenate(own)
    if not len(bounds) or not len(places):
        return np.zeros(len(rles))
    found = np.interp(places, bounds, before, left=0)
    found = found * (2 * (np.arange(len(places)) % 2) - 1)  # each list has an even length
    return np.bincount(np.repeat(np.arange(len(own)), [len(b) for b in own]), found, len(own))


def iou(rles: Sequence[Rle], others: Sequence[Rle], crowd: Sequence[bool]) -> np.ndarray:
    """Intersection over union `[N, M]` of two lists of masks.

    Args:
      crowd: which of the M others are crowd regions: over the area of the first mask alone.
    """
    areas = np.asarray([area(rle) for rle in rles], np.float64)
    found = np.zeros((len(rles), len(others)))
    for m, (other, is_crowd) in enumerate(zip(others, crowd, strict=True)):
        common = intersections(rles, other)
        union = areas if is_crowd else areas + area(other) - common
        found[:, m] = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return found


def to_string(rle: Rle) -> str:
    """The counts as in COCO's compressed RLE: differences to the count two before (from the fourth
    on) in groups of 5 bits, the lowest first, each as the character 48 + bits, + 32 if more follow.
    """
    values = rle.counts.astype(np.int64)
    values[3:] -= rle.counts[1:-2]
    text = bytearray()
    for value in values.tolist():
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text.append(48 + bits + 32 * more)
    return text.decode("ascii")


def from_string(text: str | bytes, height: int, width: int) -> Rle:
    """The inverse of `to_string`.

    Raises:
      ValueError: a text that is no compressed RLE of a mask of this size.
    """
    data = text.encode("latin-1", "replace") if isinstance(text, str) else text
    codes = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if len(codes) and (codes.min() < 0 or codes.max() > 63 or codes[-1] & 32):
        raise ValueError("the counts are no compressed RLE: a character is wrong or missing")
    last = (codes & 32) == 0
    number = np.concatenate([[0], np.cumsum(last)[:-1]]).astype(np.int64)[: len(codes)]
    first = np.flatnonzero(np.concatenate([[True], last[:-1]]))[: int(last.sum())]
    place = np.arange(len(codes)) - first[number] if len(codes) else codes
    if len(place) and place.max() > 11:
        raise ValueError("the counts are no compressed RLE: a number is too long")
    values = np.zeros(len(first), np.int64)
    np.add.at(values, number, (codes & 31) << (5 * place))
    negative = (codes[last] & 16) > 0
    values -= np.where(negative, np.int64(1) << (5 * (place[last] + 1)), 0)
    # A difference to the count two before: sums over every second one.
    counts = values.copy()
    counts[1::2], counts[2::2] = np.cumsum(values[1::2]), np.cumsum(values[2::2])
    return _checked(Rle(height, width, counts))


def _checked(rle: Rle) -> Rle:
    if rle.height < 0 or rle.width < 0 or (len(rle.counts) and rle.counts.min() < 0):
        raise ValueError("an RLE has a negative size or count")
    size = rle.height * rle.width
    if (
        len(rle.counts) and rle.counts.max() > size
    ):  # before the sum, which such a count may overflow
        raise ValueError(f"an RLE has a count of {rle.counts.max()}, and its mask {size} pixels")
    total = int(rle.counts.sum())
    if total != size:
        raise ValueError(
            f"an RLE has {total} pixels in all, and a mask of {rle.height}x{rle.width} has {size}"
        )
    return rle


def from_polygon(points: Sequence[float], height: int, width: int) -> Rle:
    """The mask of a polygon, (x0, y0, x1, y1, ...) in pixels.

    The outline is drawn on a grid five times as fine, and crosses a column where it changes its
    fine column at the column's middle.

    Raises:
      ValueError: fewer than three points, coordinates that are no pairs of numbers, or an outline
        of more than `MAX_OUTLINE` pixels.
    """
    try:
        xy = np.asarray(points, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"the polygon {str(points)[:80]} has other things than numbers") from None
    if xy.ndim != 1 or len(xy) < 6 or len(xy) % 2:
        raise ValueError(f"a polygon has three points (x, y) or more, and this one {xy.size / 2:g}")
    corners = xy.reshape(-1, 2)
    length = abs(corners - np.roll(corners, -1, 0)).max(1).sum()
    if not max(length, abs(xy).max()) <= MAX_OUTLINE:  # NaN, too
        raise ValueError(
            f"a polygon with the outline {str(points)[:80]} cannot be drawn: use finite numbers, "
            f"and at most {MAX_OUTLINE:,} pixels"
        )
    # C's (int) rounds toward 0.
    x, y = (np.trunc(5 * side + 0.5).astype(np.int64) for side in (xy[::2], xy[1::2]))
    x0, y0, x1, y1 = x, y, np.roll(x, -1), np.roll(y, -1)
    dx, dy = abs(x1 - x0), abs(y1 - y0)
    flat = dx >= dy
    swap = np.where(flat, x0 > x1, y0 > y1)
    x0, x1 = np.where(swap, x1, x0), np.where(swap, x0, x1)
    y0, y1 = np.where(swap, y1, y0), np.where(swap, y0, y1)
    steps = np.maximum(dx, dy)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.where(flat, (y1 - y0) / dx, (x1 - x0) / dy)
    slope = np.where(steps > 0, slope, 0.0)
    edge = np.repeat(np.arange(len(x)), steps + 1)
    at = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - steps - 1, steps + 1)
    at = np.where(swap[edge], steps[edge] - at, at)
    across = np.where(flat, y0, x0)[edge] + slope[edge] * at + 0.5
    along, across = np.where(flat, x0, y0)[edge] + at, np.trunc(across).astype(np.int64)
    u, v = np.where(flat[edge], along, across), np.where(flat[edge], across, along)
    # Where the outline enters another fine column: the boundary in y of that column.
    moved = np.flatnonzero(u[1:] != u[:-1]) + 1
    column = (np.minimum(u[moved], u[moved - 1]) + 0.5) / 5 - 0.5
    row = (np.minimum(v[moved], v[moved - 1]) + 0.5) / 5 - 0.5
    kept = (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    row = np.ceil(np.clip(row[kept], 0, height)).astype(np.int64)
    places, count = np.unique(column[kept].astype(np.int64) * height + row, return_counts=True)
    places = places[count % 2 == 1]
    return _of_changes(height, width, places[places < height * width])


def from_segmentation(segmentation: Any, height: int, width: int) -> Rle:
    """The mask of a COCO `segmentation`: a list of polygons, or RLE as text or as counts.

    Raises:
      ValueError: something else, or an RLE of another size than the image's.
    """
    if isinstance(segmentation, Mapping):
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if not isinstance(size, list | tuple) or list(size) != [height, width]:
            raise ValueError(
                f"its segmentation has the size {size}, and its image is {[height, width]} "
                "(height, width)"
            )
        if isinstance(counts, str | bytes):
            return from_string(counts, height, width)
        if not isinstance(counts, list) or not all(
            isinstance(count, int) and abs(count) < 2**62 for count in counts
        ):
            raise ValueError("the counts of an RLE are neither text nor a list of whole numbers")
        return _checked(Rle(height, width, np.asarray(counts, np.int64)))
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("its segmentation is neither a list of polygons nor an RLE")
    parts = [from_polygon(points, height, width) for points in segmentation]
    return parts[0] if len(parts) == 1 else merge(parts)
