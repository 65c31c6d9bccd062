"""Early stopping against its definition."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.run.early_stopping import EarlyStopping


def stops(stopping, values):
    """Whether it wants to stop, after each value of the metric."""
    wants = []
    for value in values:
        stopping.update({"other": 0.0, stopping.metric: value})
        wants.append(stopping.stopped)
    return wants


def test_early_stopping_waits_its_patience():
    stopping = EarlyStopping("recall", patience=2, mode="max", min_delta=0.1)
    #   best 1.0, +0.05 is too little, new best 1.2, wait 1, and 2: NaN counts
    values = (1.0, 1.05, 1.2, 1.2, float("nan"))
    assert stops(stopping, values) == [False, False, False, False, True]
    assert stopping.best == 1.2


def test_early_stopping_never_takes_nan_as_the_best():
    stopping = EarlyStopping("loss", patience=2, mode="min")
    assert stops(stopping, (float("nan"), 3.0, 2.0)) == [False, False, False]
    assert stopping.best == 2.0


@pytest.mark.parametrize("before", [("rank", "max"), ("recall", "min"), ("", "max")])
def test_with_another_metric_or_mode_it_starts_anew(before):
    """A best rank of 0.083 of "max" would never be improved on by a "min"."""
    saved = {"best": 0.083, "waited": 3}
    stopping = EarlyStopping("recall", patience=4)
    stopping.restore(saved, dict(zip(("metric", "mode"), before)))
    assert stopping.unchecked and stops(stopping, (0.05, 0.06, 0.01)) == [False] * 3
    assert stopping.best == 0.06 and not stopping.unchecked
    same = EarlyStopping("recall", patience=4)
    same.restore(saved, {"metric": "recall", "mode": "max"})
    assert not same.unchecked and stops(same, (0.05,)) == [True]


def test_without_a_metric_it_never_stops():
    stopping = EarlyStopping("", patience=1)
    for _ in range(3):
        stopping.update({"recall": 1.0})
        assert not stopping.stopped


def test_a_metric_that_no_evaluator_gives_is_named():
    with pytest.raises(ValueError, match=r"metric is 'recal'.*\['rank', 'recall'\]"):
        EarlyStopping("recal", patience=1).update({"recall": 1.0, "rank": 2.0})


@settings(max_examples=50)
@given(
    values=st.lists(st.integers(-5, 5), min_size=1, max_size=20),
    patience=st.integers(1, 4),
    mode=st.sampled_from(["min", "max"]),
    cut=st.integers(0, 19),
)
def test_early_stopping_is_its_definition_also_across_a_restart(values, patience, mode, cut):
    """Stop at the first evaluation whose last `patience` did not beat what came before them."""
    best_of = max if mode == "max" else min
    sign = 1 if mode == "max" else -1

    def should_stop(n):
        old, new = values[: n - patience], values[n - patience : n]
        return n > patience and sign * best_of(new) <= sign * best_of(old)

    stopping = EarlyStopping("m", patience, mode)
    for n, value in enumerate(values, start=1):
        if n == cut:
            saved = stopping.state()
            stopping = EarlyStopping("m", patience, mode)
            stopping.restore(saved, {"metric": "m", "mode": mode})
        stopping.update({"m": value})
        assert stopping.stopped == should_stop(n)
        if stopping.stopped:
            break


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"patience": 0}, "patience 0"),
        ({"patience": 1, "mode": "best"}, "mode is 'best'"),
        ({"patience": 1, "min_delta": -1.0}, "min_delta -1.0"),
    ],
)
def test_bad_early_stopping_is_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        EarlyStopping("m", **arguments)
