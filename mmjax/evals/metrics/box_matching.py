"""Which detection is which annotated object: COCO's greedy matching, of all images at once."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class Pairs(NamedTuple):
    """P pairs of a detection and a truth that may be the same object, and their overlap.

    Sorted by detection and then by truth. All truths of an image and class are numbered
    consecutively, and each detection there is paired with every one of them.
    """

    detection: Int[np.ndarray, " p"]
    truth: Int[np.ndarray, " p"]
    overlap: Float[np.ndarray, " p"]


def match_greedily(
    pairs: Pairs,
    detections: int,
    ignored: Bool[np.ndarray, "g a"],
    crowd: Bool[np.ndarray, " g"],
    thresholds: Float[np.ndarray, " t"],
) -> tuple[Bool[np.ndarray, "d a t"], Bool[np.ndarray, "d a t"]]:
    """Each detection, the best first, takes the truth with the largest overlap that is not taken.

    Truths that are not ignored come first; of equal overlaps the last truth. A crowd can be taken
    by any number of detections.

    Args:
      pairs: of detections numbered so that those of an image and class are consecutive, the best
        first.
      detections: their number, D.
      ignored: of each of G truths, for each of A area ranges.
      crowd: truths that are crowds; they are ignored, too.
      thresholds: the lowest overlap of a match, of T thresholds.

    Returns:
      `[D, A, T]`: the detection has a truth; and that is an ignored one.
    """
    shape = (detections, ignored.shape[1], len(thresholds))
    matched, of_ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    if not len(pairs.overlap):
        return matched, of_ignored
    # Only detections that overlap enough with any truth take part.
    possible = pairs.overlap >= thresholds.min()
    rows = np.zeros(detections, bool)
    rows[pairs.detection[possible]] = True
    kept = rows[pairs.detection]
    detection, truth, overlap = (x[kept] for x in pairs)
    starts = np.flatnonzero(np.append(True, detection[1:] != detection[:-1])[: len(detection)])
    if not len(starts):
        return matched, of_ignored
    number = np.diff(np.append(starts, len(detection)))  # of truths in the group
    first, which = truth[starts], detection[starts]
    opens = np.append(True, first[1:] != first[:-1])  # a new image or class
    begin = np.flatnonzero(opens)
    sizes = number[begin]
    # Groups of about as many truths together, so that little is padded.
    width = 2 ** np.ceil(np.log2(sizes)).astype(int)
    for most in np.unique(width):
        groups = np.flatnonzero(width == most)
        lengths = np.diff(np.append(begin, len(which)))[groups]
        groups = groups[np.argsort(-lengths, kind="stable")]
        lengths = np.sort(lengths)[::-1]
        column = np.arange(most)
        real = column < sizes[groups, None]
        at = np.where(real, first[begin[groups], None] + column, 0)
        ignore = ignored[at].transpose(0, 2, 1)[:, :, None]  # [groups, a, 1, most]
        endless = crowd[at][:, None, None]
        taken = np.zeros((len(groups), *shape[1:], most), bool)
        taken |= ~real[:, None, None]
        for r in range(lengths[0]):
            active = int(np.searchsorted(-lengths, -r))  # groups with a detection left
            row = begin[groups[:active]] + r
            place = np.minimum(starts[row, None] + column, len(overlap) - 1)
            own = np.where(real[:active], overlap[place], -1.0)[:, None, None]
            free = ~taken[:active] & (own >= thresholds[:, None])
            best, best_is_ignored = _choose(free, own, ignore[:active])
            some = np.take_along_axis(free, best[..., None], -1)[..., 0]
            matched[which[row]] = some
            of_ignored[which[row]] = some & best_is_ignored
            takes = (column == best[..., None]) & some[..., None]
            taken[:active] |= takes & ~endless[:active]
    return matched, of_ignored


def _choose(
    free: np.ndarray, overlap: np.ndarray, ignored: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The last truth with the largest overlap, of those that are not ignored if any is free."""
    proper = free & ~ignored
    any_proper = proper.any(-1)
    of = np.where(any_proper[..., None], proper, free & ignored)
    scored = np.where(of, overlap, -1.0)
    best = scored.shape[-1] - 1 - scored[..., ::-1].argmax(-1)
    return best, ~any_proper
