"""Schedules of the learning rate."""

import math

import ml_collections
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.optim import optimizer as optim


def config(**fields):
    return ml_collections.ConfigDict({"learning_rate": 0.01, "schedule": "constant", **fields})


@pytest.mark.parametrize(
    ("fields", "points"),
    [
        ({"schedule": "constant"}, {0: 1.0, 50: 1.0, 100: 1.0}),
        ({"schedule": "constant", "warmup_steps": 10}, {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0}),
        ({"schedule": "constant", "warmup_steps": 0.1}, {0: 0.1, 9: 1.0}),
        ({"schedule": "constant", "cooldown_steps": 20}, {80: 1.0, 90: 0.5, 100: 0.0}),
        ({"schedule": "cosine"}, {0: 1.0, 25: 0.5 + math.sqrt(0.125), 50: 0.5, 100: 0.0, 120: 0.0}),
        ({"schedule": "cosine", "warmup_steps": 20}, {20: 1.0, 60: 0.5, 100: 0.0}),
        ({"schedule": "cosine", "end_learning_rate_fraction": 0.1}, {50: 0.55, 100: 0.1}),
        ({"schedule": "linear", "warmup_steps": 20}, {19: 1.0, 20: 1.0, 40: 0.75, 100: 0.0}),
        ({"schedule": "linear", "end_learning_rate_fraction": 0.5}, {50: 0.75, 100: 0.5}),
        ({"schedule": "rsqrt", "timescale": 10}, {0: 1.0, 30: 0.5, 80: 1 / 3}),
        ({"schedule": "rsqrt", "timescale": 10, "warmup_steps": 20}, {20: 1.0, 50: 0.5}),
        (
            {"schedule": "rsqrt", "timescale": 10, "cooldown_steps": 40},
            {30: 0.5, 80: 1 / 6, 100: 0.0},
        ),
    ],
)
def test_schedule_at_known_points(fields, points):
    schedule = optim.make_schedule(config(**{**fields, "learning_rate": 2.0}), 100)
    for step, want in points.items():
        assert float(schedule(step)) == pytest.approx(2.0 * want, abs=1e-6), step


def test_a_learning_rate_of_points_is_joined_by_lines():
    cfg = config(learning_rate=((0, 0.0), (10, 2.0), (30, 1.0)), cooldown_steps=20)
    schedule = optim.make_schedule(cfg, 100)
    for step, want in {0: 0.0, 5: 1.0, 10: 2.0, 20: 1.5, 30: 1.0, 80: 1.0, 90: 0.5, 100: 0}.items():
        assert float(schedule(step)) == pytest.approx(want), step
    assert optim.learning_rates(cfg, schedule, 5) == {"learning_rate": 1.0}


@settings(max_examples=25)
@given(
    kind=st.sampled_from(["cosine", "linear", "rsqrt", "constant"]),
    total=st.integers(1, 1000),
    warmup=st.floats(0, 0.99),
    end=st.floats(0, 1),
)
def test_schedule_rises_then_never_rises_again(kind, total, warmup, end):
    cfg = config(schedule=kind, warmup_steps=warmup, end_learning_rate_fraction=end)
    rates = optim.make_schedule(cfg, total)(np.arange(1001))[: total + 1]
    assert np.all(np.isfinite(rates)) and np.all(rates >= 0)
    assert rates.max() <= 0.01 * (1 + 1e-6)
    top = int(rates.argmax())
    assert np.all(np.diff(rates[: top + 1]) >= 0)
    assert np.all(np.diff(rates[top:]) <= 1e-8)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"schedule": "cosin"}, "schedule is 'cosin'"),
        ({"warmup_steps": 101}, "warmup_steps is 101 in a run of 100"),
        ({"warmup_steps": -1}, "warmup_steps is -1"),
        ({"warmup_steps": 1.5}, "warmup_steps is 1.5"),
        ({"schedule": "cosine", "cooldown_steps": 5}, "cooldown_steps is 5"),
        ({"warmup_steps": 60, "cooldown_steps": 50}, "there are 40 steps"),
        ({"end_learning_rate_fraction": 2.0}, "end_learning_rate_fraction 2.0"),
        ({"learning_rate": -1.0}, r"learning_rate has the value -1.0: it must be in \[0.0, inf\]"),
        ({"learning_rate": ((5, 1.0), (5, 0.0))}, "steps of config.optim.learning_rate do not inc"),
        ({"learning_rate": ((0, 1.0),), "schedule": "cosine"}, "has points, and .* is 'cosine'"),
        ({"learning_rate": None}, "learning_rate is not set"),
        ({"learnin_rate": 1.0}, "Did you mean 'learning_rate'"),
    ],
)
def test_bad_schedules_are_named(fields, words):
    with pytest.raises(ValueError, match=words):
        optim.make_schedule(config(**fields), 100)


# -- rules by path -----------------------------------------------------------------------------
