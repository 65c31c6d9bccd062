"""The order of mixtures: quotas against a slow loop over exact fractions, rows recounted."""

from fractions import Fraction

import grain
import numpy as np
import pytest

from mmjax.data.order import PLAIN, MixtureOrder

UNIT = 2**24


def weight_at(value, step):
    """A schedule's value, exactly."""
    if isinstance(value, (int, float)):
        return Fraction(value)
    if step <= value[0][0]:
        return Fraction(value[0][1])
    for (a, x), (b, y) in zip(value, value[1:]):
        if step <= b:
            return Fraction(x) + (Fraction(y) - Fraction(x)) * Fraction(step - a, b - a)
    return Fraction(value[-1][1])


def slow_counts(history, batch_size, names, steps):
    """C and T before each step, one step after the other as the rule says it."""
    due, counts = [0] * len(names), [0] * len(names)
    exact = [Fraction(0)] * len(names)
    found = [(list(counts), list(exact))]
    for step in range(steps):
        weights = [w for at, w in history if at <= step][-1]
        now = [weight_at(weights.get(name, 0), step) for name in names]
        share = [batch_size * w / sum(now) for w in now]
        units = [round(UNIT * s) for s in share]
        units[now.index(max(now))] += batch_size * UNIT - sum(units)
        due = [a + b for a, b in zip(due, units)]
        exact = [a + b for a, b in zip(exact, share)]
        new = [max(c, d // UNIT) for c, d in zip(counts, due)]

        wait = [
            (d % UNIT == 0, u == 0, Fraction(UNIT - d % UNIT, u or 1)) for d, u in zip(due, units)
        ]
        behind = [p for p in range(len(names)) if new[p] == due[p] // UNIT]
        behind.sort(key=lambda p, wait=wait: wait[p])
        while sum(new) < batch_size * (step + 1):
            new[behind.pop(0)] += 1
        while sum(new) > batch_size * (step + 1):
            got = [p for p in range(len(names)) if new[p] > counts[p]]
            new[min(got, key=lambda p, due=due: due[p] % UNIT)] -= 1
        counts = new
        found.append((list(counts), list(exact)))
    return [np.array(x, dtype=kind) for x, kind in zip(zip(*found), (int, float))]


RISING = ((0, 0.0), (40, 1.0), (90, 1.0), (150, 0.0))
MIXTURES = [
    ([[0, {"a": 1, "b": 1}]], 4),
    ([[0, {"a": 3, "b": 1, "c": 0.3}]], 8),
    ([[0, {"a": 5, "b": 0.01, "c": 0.02, "d": 0.015}]], 3),  # less than a row a step
    ([[0, {"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}]], 2),
    ([[0, {"a": 1, "b": RISING}]], 16),
    ([[0, {"a": ((0, 1.0), (30, 0.0)), "b": RISING, "c": 0.4}]], 5),
    ([[0, {"a": 1, "b": 2}], [37, {"a": 5, "b": 1}], [90, {"a": 1, "b": 0, "c": 4}]], 7),
    ([[0, {"a": 1}]], 6),
]


@pytest.mark.parametrize(("history", "batch_size"), MIXTURES)
def test_quotas_against_the_slow_loop(history, batch_size, monkeypatch):
    monkeypatch.setattr("mmjax.data.order._BLOCK", 32)  # several of them
    names = sorted({name for _, weights in history for name in weights})
    order = MixtureOrder(history, batch_size, 0, dict.fromkeys(names, 10))
    wanted, due = slow_counts(history, batch_size, names, 200)
    found = np.array([order.consumed(step) for step in range(201)])
    np.testing.assert_array_equal(found, wanted)
    assert np.abs(found - due).max() < 1.5  # 1 but where a schedule turns
    assert (np.diff(found, axis=0) >= 0).all()
    np.testing.assert_array_equal(found.sum(axis=1), batch_size * np.arange(201))


@pytest.mark.parametrize("seed", range(12))
def test_no_part_is_ever_more_than_an_example_from_its_share(seed):
    rng = np.random.default_rng(seed)
    parts, batch_size = int(rng.integers(2, 8)), int(rng.integers(1, 40))
    weights = {str(p): float(rng.random() ** 3) + 1e-3 for p in range(parts)}
    share = np.array(list(weights.values())) / sum(weights.values())
    order = MixtureOrder([[0, weights]], batch_size, 0, dict.fromkeys(weights, 9))
    for step in range(1001):
        off = np.abs(order.consumed(step) - batch_size * step * share)
        assert off.max() <= 1 + step * parts / UNIT


def test_a_million_steps_on():
    weights = {"a": 1.0, "b": ((0, 0.0), (1000, 3.0)), "c": 0.001}
    order = MixtureOrder([[0, weights]], 256, 0, {"a": 5, "b": 6, "c": 7})
    at = order.consumed(1_000_000)
    ramp = np.minimum(np.arange(1_000_000) / 1000, 1) * 3
    due = [np.sum(256 * w / (1.001 + ramp)) for w in (1.0, ramp, 0.001)]
    np.testing.assert_allclose(at, due, atol=1.2)
    assert at.sum() == 256_000_000


def test_rows_go_through_every_part_epoch_by_epoch():
    sizes = {"a": 7, "b": 30, "c": 3}
    order = MixtureOrder([[0, {"a": 1, "b": 2, "c": 1}]], 8, 3, sizes)
    seen = [[], [], []]
    for step in range(120):
        parts, index = order.rows(step)
        assert parts.dtype == np.int32 and parts.shape == index.shape == (8,)
        assert np.bincount(parts, minlength=3).tolist() == [2, 4, 2]
        for p, i in zip(parts, index):
            seen[p].append(int(i))
    for rows, size in zip(seen, sizes.values()):
        epochs = np.array(rows[: len(rows) // size * size]).reshape(-1, size)
        assert (np.sort(epochs, axis=1) == np.arange(size)).all()
        assert len({tuple(e) for e in epochs}) >= min(6, len(epochs))


def test_places_are_shuffled_so_that_every_share_sees_every_part():
    order = MixtureOrder([[0, {"a": 1, "b": 1}]], 32, 0, {"a": 50, "b": 50})
    parts = np.array([order.positions(step)[0] for step in range(200)])
    # 16 of 32 places; each of them is the second part in half of the steps: 5 sigma are 0.18
    assert np.abs(parts.mean(axis=0) - 0.5).max() < 0.18
    assert len({tuple(row) for row in parts}) == 200


def test_another_part_changes_nothing_in_the_order_of_the_others():
    one = MixtureOrder([[0, {"a": 1, "b": 1}]], 4, 5, {"a": 20, "b": 30})
    two = MixtureOrder([[0, {"a": 1, "b": 1, "c": 9}]], 4, 5, {"c": 4, "a": 20, "b": 30})
    assert [one.index(0, i) for i in range(60)] == [two.index(1, i) for i in range(60)]
    twins = MixtureOrder([[0, {"a": 1, "b": 1}]], 4, 5, {"a": 20, "b": 20})
    assert [twins.index(0, i) for i in range(20)] != [twins.index(1, i) for i in range(20)]


@pytest.mark.parametrize("size, seed", [(1, 0), (2, 3), (10, 2**32 - 1), (3000, 7), (100_000, 8)])
def test_an_epoch_has_the_permutation_of_grain(size, seed):
    order = MixtureOrder([[0, {PLAIN: 1}]], 4, seed, {PLAIN: size})
    wanted = grain.MapDataset.range(size).shuffle(seed=seed).repeat()
    for position in (0, 1, 2, 11, size - 1, size, 5 * size + 1, 2**33):
        index = order.index(0, np.int64(position))
        assert index == wanted[position] and type(index) is int


def test_a_plain_source_has_one_order():
    order = MixtureOrder([[0, {PLAIN: 1}]], 4, 5, {PLAIN: 10})
    for step in (0, 3, 2500):
        parts, positions = order.positions(step)
        np.testing.assert_array_equal(positions, np.arange(4 * step, 4 * step + 4))
        assert not parts.any()


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"a": 0, "b": 0}, "all parts of the mixture are 0 at step 0"),
        ({"a": ((5, 1.0), (9, 0.0)), "b": 0}, "are 0 at step 9"),
        ({"a": 1, "b": -2}, r"parts\.b\.weight has the value -2"),
        ({"a": 1, "b": ((9, 1.0), (9, 2.0))}, r"steps of .*parts\.b\.weight do not increase"),
        ({"a": 1, "b": "much"}, r"parts\.b\.weight is 'much': use a number"),
        ({"a": 1, "c": 1}, "weight for part 'c', which the mixture does not have; it has a, b"),
    ],
)
def test_wrong_weights_are_one_clear_sentence(weights, said):
    with pytest.raises(ValueError, match=said):
        MixtureOrder([[0, weights]], 4, 0, {"a": 3, "b": 3})


def test_an_empty_part_and_a_wrong_history():
    with pytest.raises(ValueError, match="Part 'b' of the mixture has no examples"):
        MixtureOrder([[0, {"a": 1}]], 4, 0, {"a": 3, "b": 0})
    with pytest.raises(ValueError, match=r"\[0, 5, 5\]: from 0, increasing"):
        MixtureOrder([[0, {"a": 1}], [5, {"a": 2}], [5, {"a": 1}]], 4, 0, {"a": 3})
