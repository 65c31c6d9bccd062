"""The order of training: which part, and which example of it, every row of every batch is.

A plain source is a mixture of one part. Nothing here reads data: the order is a function of the
weights, the batch size, the seed and the number of examples of each part.

Quotas. At step t part p is due B w_p(t) / sum_q w_q(t) of the B rows, and T_p(s) is the sum of that
over the steps before s. It has had C_p(s) rows by then: T_p(s) rounded down, and one more for those
whose next whole row is due soonest, as many as fill the s B rows. So no part is ever a row or more
from what is due to it, however small its share of a batch is, and it gets C_p(s+1) - C_p(s) rows of
step s. That is the rule of Tijdeman (1980, "The chairman assignment problem") with B rows a turn;
when soonest is, is judged by the weights of the step, so that schedules need no look ahead. Where a
part would have to give rows back (its share of a batch is below one row, or has just become so) it
keeps them.

Within a part the rows come in its own order, each epoch another permutation.
"""

import functools
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np

from mmjax.data.draws import PLACES, row_rng
from mmjax.schedule import Schedule, check_schedule, is_number, schedule

Weights = Mapping[str, Schedule]

PLAIN = ""  # the name of the only part of a plain source
_BITS = 24  # what is due is counted in 2**-24 of a row, so that sums are exact
_BLOCK = 1024  # steps whose counts are computed at once
_MOST = 1e6  # a weight


class MixtureOrder:
    """The rows of every step.

    Args:
      weights_history: [[step, {part: weight}], ...], first of step 0: from that step on the parts
        have these weights, numbers or schedules (of the step of the run); 0 where a part has none.
      batch_size: B, of the global batch.
      seed: 0 to 2**32 - 1.
      sizes: part -> number of examples. A part's number is its place here.

    Raises:
      ValueError: a part without examples, or weights that `check_weights` refuses.
    """

    def __init__(
        self,
        weights_history: Sequence[tuple[int, Weights]],
        batch_size: int,
        seed: int,
        sizes: Mapping[str, int],
    ):
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
        # Named, not numbered: another part more changes nothing in the order of those there were.
        self._orders = [
            grain.MapDataset.range(size).shuffle(seed=_seed_of(seed, name)).repeat()
            for name, size in sizes.items()
        ]
        zero = np.zeros(len(sizes), np.int64)
        self._starts = [(zero, zero)]  # due and counted before each block, as far as known
        self._lock = threading.Lock()
        self._counts_of_block = functools.lru_cache(maxsize=2)(self._count_block)
        self.positions = functools.lru_cache(maxsize=8)(self._positions)

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Part [B] int32 and index in it [B] int64 of every row of a step's batch."""
        parts, positions = self.positions(step)
        index = [self.index(p, i) for p, i in zip(parts, positions)]
        return parts, np.asarray(index, np.int64)

    def index(self, part: int, position: int) -> int:
        """The example that a part gives at a position of its order."""
        return int(self._orders[part][int(position)])

    def consumed(self, step: int) -> np.ndarray:
        """C [P] int64: how many rows each part has had before a step."""
        if len(self._names) == 1:
            return np.asarray([step * self._batch_size])
        return self._counts_of_block(step // _BLOCK)[step % _BLOCK]

    def _positions(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Part [B] int32 and position in its order [B] of every row of a step's batch."""
        if len(self._names) == 1:
            first = step * self._batch_size
            size = self._batch_size
            return np.zeros(size, np.int32), np.arange(first, first + size)
        before, after = self.consumed(step), self.consumed(step + 1)
        parts = np.repeat(np.arange(len(before), dtype=np.int32), after - before)
        # Every process and every microbatch is to see every part.
        parts = row_rng(self._seed, step, PLACES).permutation(parts)
        positions = np.empty(len(parts), np.int64)
        for p in range(len(before)):
            positions[parts == p] = np.arange(before[p], after[p])
        return parts, positions

    def _count_block(self, block: int) -> np.ndarray:
        """C before each of the steps of a block, [_BLOCK, P]."""
        with self._lock:
            while len(self._starts) <= block + 1:
                due, counts = self._advance(len(self._starts) - 1)
                self._starts.append((due[-1], counts[-1]))
            _, counts = self._advance(block)
        return np.concatenate([self._starts[block][1][None], counts[:-1]])

    def _advance(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """What was due, in 2**-_BITS rows, and what was counted, after each step of a block."""
        due, counted = self._starts[block]
        steps = np.arange(block * _BLOCK, (block + 1) * _BLOCK)
        shares = self._shares(steps)
        due = due + np.cumsum(shares, axis=0)
        return due, _counts(counted, due, shares, self._batch_size * (steps + 1))

    def _shares(self, steps: np.ndarray) -> np.ndarray:
        """What is due to each part in each step, [N, P] in 2**-_BITS rows; a row's sum is B rows.

        Sums go part by part, since the order of NumPy's own may hang on the machine.
        """
        weights = np.zeros((len(steps), len(self._names)))
        for start, given in self._history:
            now = steps >= start
            for p, name in enumerate(self._names):
                weights[now, p] = schedule(given.get(name, 0), steps[now])
        total = functools.reduce(np.add, weights.T)
        whole = self._batch_size << _BITS
        shares = np.rint(whole * (weights / total[:, None])).astype(np.int64)
        shares[np.arange(len(steps)), weights.argmax(axis=1)] += whole - shares.sum(axis=1)
        return shares


def _counts(
    counted: np.ndarray, due: np.ndarray, shares: np.ndarray, totals: np.ndarray
) -> np.ndarray:
    """C after each of N steps, [N, P]; the module's docstring has the rule.

    Args:
      counted: [P], C before them.
      due, shares: [N, P], T after each step and what the step added to it, in 2**-_BITS rows.
      totals: [N], the sum of C after each step.
    """
    whole, rest = due >> _BITS, due & ((1 << _BITS) - 1)
    with np.errstate(divide="ignore"):
        wait = ((1 << _BITS) - rest) / shares  # steps until the next whole row
    wait[rest == 0] = np.inf
    wait[(rest > 0) & (shares == 0)] = np.finfo(float).max
    ranks = wait.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    counts = whole + (ranks < (totals - whole.sum(axis=1))[:, None])
    falls = (np.diff(counts, axis=0, prepend=counted[None]) < 0).any(axis=1)
    done = 0
    for first in np.flatnonzero(falls):
        for i in range(max(first, done), len(counts)):
            before, done = counts[i - 1] if i else counted, i + 1
            if (counts[i] >= before).all():  # as without the past again
                break
            counts[i] = _keep(before, whole[i], rest[i], wait[i], int(totals[i]))
    return counts


def _keep(
    before: np.ndarray, whole: np.ndarray, rest: np.ndarray, wait: np.ndarray, total: int
) -> np.ndarray:
    """C after a step in which parts are ahead of what is due: they keep what they have, [P]."""
    counts = np.maximum(before, whole)
    missing = total - int(counts.sum())
    behind = [p for p in np.argsort(wait, kind="stable") if counts[p] == whole[p]]
    counts[behind[: max(0, missing)]] += 1
    for _ in range(-missing):  # too many are ahead: who has got most in this step waits
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
      ValueError: a weight of a part that is not there, one that is no number 0 or above nor a
        schedule of such, or a step at which all are 0.
    """
    for name, value in weights.items():
        where = f"config.data.train.parts.{name}.weight"
        if name not in names:
            raise ValueError(
                f"There is a weight for part '{name}', which the mixture does not have; it has "
                f"{', '.join(names)}. A part that has been trained on stays: give it weight 0."
            )
        check_schedule(value, where, 0, _MOST)
    points = {0} | {
        int(step) for value in weights.values() if not is_number(value) for step, _ in value
    }
    # Between its points a sum of weights is straight, and 0 only if it is so at both ends.
    for step in sorted(points):
        if not math.fsum(schedule(value, step) for value in weights.values()):
            raise ValueError(
                f"The weights of all parts of the mixture are 0 at step {step}: give one part a "
                "weight above 0 there."
            )
