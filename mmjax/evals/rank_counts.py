"""How many items rank before each relevant one, in both directions, from one product of all pairs.

The scores are made in blocks and never sorted: a rank is a count of greater scores.
"""

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

# Scores of unit vectors that differ by less than this are float32 noise, hence ties.
TIE = 1e-6
COLUMNS = 1 << 16  # texts scored at once
PIECE = 128  # rows that a thread counts at once; their number must fit into a byte
FEW = 8  # a query with more relevant items sorts its scores


def pair_scores(x: np.ndarray, y: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """`[P]` float32, x[rows] . y[columns], without all of these rows in memory at once."""
    scores = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), 1 << 14):
        part = slice(start, start + (1 << 14))
        scores[part] = np.einsum("pd,pd->p", x[rows[part]], y[columns[part]])
    return scores


def irrelevant_ahead(
    x: np.ndarray, y: np.ndarray, rows: np.ndarray, columns: np.ndarray, chunk_size: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """How many irrelevant items reach the score of each relevant pair, up to `TIE`.

    Args:
      x: `[N, D]`; y: `[M, D]`, of unit length.
      rows, columns: `[P]`, indices of the relevant pairs, sorted by column.
      chunk_size: rows scored at once, against COLUMNS columns.

    Returns:
      `[P]` int64 twice: the columns irrelevant to the pair's row, and the rows irrelevant to its
      column.
    """
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
    reach = pair_scores(x, y, rows, columns) - np.float32(TIE)
    of_row, of_column = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    by_row = np.argsort(rows, kind="stable")
    first_of_row = np.searchsorted(rows[by_row], np.arange(len(x) + 1))
    first_of_column = np.searchsorted(columns, np.arange(len(y) + 1))

    def count_rows(scores: np.ndarray, first: int) -> None:
        for row, scored in enumerate(scores, start=first):
            pairs = by_row[first_of_row[row] : first_of_row[row + 1]]
            of_row[pairs] += _reaching(scored, reach[pairs])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for top in range(0, len(x), chunk_size):
            queries = x[top : top + chunk_size]
            mine = by_row[first_of_row[top] : first_of_row[top + len(queries)]]
            for left in range(0, len(y), COLUMNS):
                scores = queries @ y[left : left + COLUMNS].T
                right = left + scores.shape[1]
                here = mine[(columns[mine] >= left) & (columns[mine] < right)]
                scores[rows[here] - top, columns[here] - left] = -np.inf  # not irrelevant
                starts = range(0, len(scores), PIECE)
                pieces = [scores[start : start + PIECE] for start in starts]
                counted = pool.map(count_rows, pieces, [top + start for start in starts])
                bounds = first_of_column[left : right + 1]
                count = functools.partial(_column_counts, reach=reach, bounds=bounds)
                for counts in pool.map(count, pieces):
                    of_column[bounds[0] : bounds[-1]] += counts
                list(counted)  # raises what a thread raised
    return of_row, of_column


def _reaching(scores: np.ndarray, reach: np.ndarray) -> Sequence[int] | np.ndarray:
    """How many of the scores `[G]` are at least each of `reach` `[r]`."""
    if len(reach) <= FEW:
        return [np.count_nonzero(scores >= least) for least in reach]
    return len(scores) - np.searchsorted(np.sort(scores), reach)


def _column_counts(scores: np.ndarray, reach: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The same of every column of `[rows, C]`: those of column c reach[bounds[c]:bounds[c + 1]]."""
    counts = np.zeros(bounds[-1] - bounds[0], np.int64)
    relevant = np.diff(bounds)
    for place in range(min(FEW, relevant.max(initial=0))):
        some = (relevant > place) & (relevant <= FEW)
        pairs = bounds[:-1][some] + place
        of_some = scores if some.all() else scores[:, some]
        reached = of_some >= reach[pairs][None]
        counts[pairs - bounds[0]] = np.add.reduce(reached.view(np.uint8), axis=0, dtype=np.uint8)
    for column in np.flatnonzero(relevant > FEW):
        pairs = slice(bounds[column], bounds[column + 1])
        counts[pairs.start - bounds[0] : pairs.stop - bounds[0]] = _reaching(
            scores[:, column], reach[pairs]
        )
    return counts
