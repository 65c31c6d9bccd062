"""The order of training: the part, and the example of that part, of every row of every batch.

A plain source is a mixture of one part. Nothing here reads data: the order is a function of the
weights, the batch size, the seed and the number of examples of each part.

Quotas. At step t part p is due B w_p(t) / sum_q w_q(t) of the B rows; T_p(s) is the sum of that
over the steps before s. C_p(s), its number of rows before step s, is T_p(s) rounded down, plus one
for the parts whose next whole row is due soonest, as many as needed to fill the s B rows. So every
part stays within one row of its quota, however small its weight, and gets C_p(s+1) - C_p(s) rows
in step s. This is the rule of Tijdeman (1980, "The chairman assignment problem") with B rows per
turn; "soonest" is computed from the weights of the current step, so schedules need no look-ahead.
If a part's count would have to decrease (its quota is, or has just fallen, below one row per
batch), it stays the same.

Within a part the rows follow its own order: a new permutation of all examples in each epoch, or
that of its source, such as shards that are read in windows.
"""

import functools
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from grain.experimental import index_shuffle

from mmjax.data.draws import PLACES, row_rng
from mmjax.schedule import Schedule, check_schedule, is_number, schedule

Weights = Mapping[str, Schedule]
IndexAt = Callable[[int, int], int]  # (seed, position) -> index: `Source.index_at`

PLAIN = ""  # the name of the only part of a plain source
_BITS = 24  # quotas are integers in units of 2**-24 row, so that sums are exact
_BLOCK = 1024  # steps whose counts are computed at once
_MAX_WEIGHT = 1e6


class WholeBatches:
    """The rows of every step of a mixture of which each step takes those of one part alone.

    Of the first t steps each part gets its fraction to within one step: the rule of
    `MixtureOrder`, with a step for a row. Parts of one source go through it together: each of its
    examples is in one batch of an epoch, of whichever of these parts.

    Args:
      weights_history, seed, sizes: as `MixtureOrder`.
      rows: of a step of each part.
      sources: for each part the number of the first part with its source.
      orders: as `MixtureOrder`.
    """

    def __init__(
        self,
        weights_history: Sequence[tuple[int, Weights]],
        seed: int,
        sizes: Mapping[str, int],
        rows: Sequence[int],
        sources: Sequence[int],
        orders: Mapping[str, IndexAt] = {},
    ):
        self._given = (weights_history, seed, sizes, rows, sources, orders)
        self._steps = MixtureOrder(weights_history, 1, seed, sizes, orders)
        self._rows, self._sources = np.asarray(rows), np.asarray(sources)
        self.positions = functools.lru_cache(maxsize=8)(self._positions)

    def __reduce__(self):
        """Another process has its own cache."""
        return WholeBatches, self._given

    def size(self, step: int) -> int:
        """Rows of a step."""
        return int(self._rows[self._part(step)])

    def _positions(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Part [B] int32, and position in its source's order [B], of each row of a step."""
        part = self._part(step)
        before, size = self._steps.consumed(step) * self._rows, self._rows[part]
        first = before[self._sources == self._sources[part]].sum()
        return np.full(size, part, np.int32), np.arange(first, first + size)

    def index(self, part: int, position: int) -> int:
        """As `MixtureOrder.index`."""
        return self._steps.index(self._sources[part], position)

    def _part(self, step: int) -> int:
        return int(self._steps.positions(step)[0][0])


class MixtureOrder:
    """The rows of every step.

    Args:
      weights_history: [[step, {part: weight}], ...], starting at step 0: the weights from each step
        on, as numbers or schedules over the run's steps; 0 for a part that is not listed.
      batch_size: B, of the global batch.
      seed: 0 to 2**32 - 1.
      sizes: part -> number of examples. Parts are numbered in this order.
      orders: part -> order of its source, of parts whose source has one.

    Raises:
      ValueError: a part without examples, or weights that `check_weights` refuses.
    """

    def __init__(
        self,
        weights_history: Sequence[tuple[int, Weights]],
        batch_size: int,
        seed: int,
        sizes: Mapping[str, int],
        orders: Mapping[str, IndexAt] = {},
    ):
        self._given = (weights_history, batch_size, seed, sizes, orders)
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"Part '{name}' of the mixture has no examples: take it out.")
        self._history = [(int(step), weights) for step, weights in weights_history]
        steps = [step for step, _ in self._history]
        if not steps or steps[0] != 0 or any(a >= b for a, b in zip(steps, steps[1:])):
            raise ValueError(f"The steps of the weights' history are {steps}: from 0, increasing.")
        for _, weights in self._history:
            check_weights(weights, sizes)
        self._batch_size, self._seed, self._names = batch_size, seed, list(sizes)
        # Seeded by name, not number: adding a part does not change the order of the others.
        self._orders = [
            (size, _seed_of(seed, name), orders.get(name)) for name, size in sizes.items()
        ]
        zero = np.zeros(len(sizes), np.int64)
        self._starts = [(zero, zero)]  # T and C at the start of each block computed so far
        self._lock = threading.Lock()
        self._counts_of_block = functools.lru_cache(maxsize=2)(self._count_block)
        self.positions = functools.lru_cache(maxsize=8)(self._positions)

    def __reduce__(self):
        """Another process has its own lock and caches."""
        return MixtureOrder, self._given

    def size(self, step: int) -> int:
        """Rows of a step."""
        del step
        return self._batch_size

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Part [B] int32, and index of the example in that part [B] int64, of a step's rows."""
        parts, positions = self.positions(step)
        index = [self.index(p, i) for p, i in zip(parts, positions)]
        return parts, np.asarray(index, np.int64)

    def index(self, part: int, position: int) -> int:
        """Index of the example at a position of a part's order.

        Without an order of its source a permutation per epoch, of which single values can be
        computed; the one of `grain.MapDataset.shuffle`.
        """
        size, seed, index_at = self._orders[part]
        if index_at is not None:
            return index_at(seed, int(position))
        epoch, place = divmod(int(position), size)
        return index_shuffle(place, max_index=size - 1, seed=(seed + epoch) % 2**32, rounds=4)

    def consumed(self, step: int) -> np.ndarray:
        """C [P] int64: number of rows of each part before a step."""
        if len(self._names) == 1:
            return np.asarray([step * self._batch_size])
        return self._counts_of_block(step // _BLOCK)[step % _BLOCK]

    def _positions(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Part [B] int32, and position in that part's order [B], of each row of a step."""
        if len(self._names) == 1:
            first = step * self._batch_size
            size = self._batch_size
            return np.zeros(size, np.int32), np.arange(first, first + size)
        before, after = self.consumed(step), self.consumed(step + 1)
        parts = np.repeat(np.arange(len(before), dtype=np.int32), after - before)
        # Shuffled, so that every process and every microbatch gets rows of every part.
        parts = row_rng(self._seed, step, PLACES).permutation(parts)
        positions = np.empty(len(parts), np.int64)
        for p in range(len(before)):
            positions[parts == p] = np.arange(before[p], after[p])
        return parts, positions

    def _count_block(self, block: int) -> np.ndarray:
        """C before each step of a block, [_BLOCK, P]."""
        with self._lock:
            while len(self._starts) <= block + 1:
                due, counts = self._advance(len(self._starts) - 1)
                self._starts.append((due[-1], counts[-1]))
            _, counts = self._advance(block)
        return np.concatenate([self._starts[block][1][None], counts[:-1]])

    def _advance(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """T (in 2**-_BITS rows) and C after each step of a block."""
        due, counted = self._starts[block]
        steps = np.arange(block * _BLOCK, (block + 1) * _BLOCK)
        quotas = self._quotas(steps)
        due = due + np.cumsum(quotas, axis=0)
        return due, _counts(counted, due, quotas, self._batch_size * (steps + 1))

    def _quotas(self, steps: np.ndarray) -> np.ndarray:
        """What each part is due in each step, [N, P] in 2**-_BITS rows; each step sums to B rows.

        Weights are added in a fixed order, since that of NumPy's sum may depend on the machine.
        """
        weights = np.zeros((len(steps), len(self._names)))
        for start, given in self._history:
            now = steps >= start
            for p, name in enumerate(self._names):
                weights[now, p] = schedule(given.get(name, 0), steps[now])
        total = functools.reduce(np.add, weights.T)
        whole = self._batch_size << _BITS
        quotas = np.rint(whole * (weights / total[:, None])).astype(np.int64)
        quotas[np.arange(len(steps)), weights.argmax(axis=1)] += whole - quotas.sum(axis=1)
        return quotas


def _counts(
    counted: np.ndarray, due: np.ndarray, quotas: np.ndarray, totals: np.ndarray
) -> np.ndarray:
    """C after each of N steps, [N, P], by the rule in the module's docstring.

    Args:
      counted: [P], C before the first step.
      due, quotas: [N, P], T after each step and the step's contribution to it, in 2**-_BITS rows.
      totals: [N], the sum of C after each step.
    """
    whole, rest = due >> _BITS, due & ((1 << _BITS) - 1)
    with np.errstate(divide="ignore"):
        wait = ((1 << _BITS) - rest) / quotas  # steps until the next whole row
    wait[rest == 0] = np.inf
    wait[(rest > 0) & (quotas == 0)] = np.finfo(float).max
    ranks = wait.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    counts = whole + (ranks < (totals - whole.sum(axis=1))[:, None])
    falls = (np.diff(counts, axis=0, prepend=counted[None]) < 0).any(axis=1)
    done = 0
    for first in np.flatnonzero(falls):
        for i in range(max(first, done), len(counts)):
            before, done = counts[i - 1] if i else counted, i + 1
            if (counts[i] >= before).all():  # the plain rule applies again
                break
            counts[i] = _keep(before, whole[i], rest[i], wait[i], int(totals[i]))
    return counts


def _keep(
    before: np.ndarray, whole: np.ndarray, rest: np.ndarray, wait: np.ndarray, total: int
) -> np.ndarray:
    """C after a step, [P], where some parts are ahead of their quota: their count is kept."""
    counts = np.maximum(before, whole)
    missing = total - int(counts.sum())
    behind = [p for p in np.argsort(wait, kind="stable") if counts[p] == whole[p]]
    counts[behind[: max(0, missing)]] += 1
    for _ in range(-missing):  # too many: take back rows of this step, smallest remainder first
        given = np.flatnonzero(counts > before)
        counts[given[np.argmin(rest[given])]] -= 1
    return counts


def _seed_of(seed: int, name: str) -> int:
    if name == PLAIN:
        return seed
    return int(np.random.SeedSequence([seed, *name.encode()]).generate_state(1)[0])


def check_weights(weights: Weights, names: Sequence[str] | Mapping[str, Any]) -> None:
    """Check the weights of a mixture's parts.

    Raises:
      ValueError: a weight for an unknown part, a weight that is neither a non-negative number nor a
        schedule of such, or a step at which all weights are 0.
    """
    for name, value in weights.items():
        where = f"config.data.train.parts.{name}.weight"
        if name not in names:
            raise ValueError(
                f"There is a weight for part '{name}', which the mixture does not have; it has "
                f"{', '.join(names)}. A part that has been trained on stays: give it weight 0."
            )
        check_schedule(value, where, 0, _MAX_WEIGHT)
    points = {0} | {
        int(step) for value in weights.values() if not is_number(value) for step, _ in value
    }
    # The sum is piecewise linear and non-negative: 0 inside a segment only if 0 at both ends.
    for step in sorted(points):
        if not math.fsum(schedule(value, step) for value in weights.values()):
            raise ValueError(
                f"The weights of all parts of the mixture are 0 at step {step}: give one part a "
                "weight above 0 there."
            )
