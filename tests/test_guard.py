"""The guard names what is not finite; early stopping stops when it should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax import guard


def test_is_finite_inside_jit():
    check = jax.jit(guard.is_finite)
    for loss, norm, want in [
        (1.0, 2.0, True),
        (np.nan, 2.0, False),
        (1.0, np.inf, False),
        (-np.inf, 2.0, False),
    ]:
        assert bool(check(jnp.float32(loss), jnp.bfloat16(norm))) is want


def test_first_nonfinite_names_tensor_kind_and_count():
    kernel = np.zeros((2, 3), np.float32)
    kernel[0, 1], kernel[1, 2], kernel[1, 1] = np.nan, np.inf, -np.inf
    trees = {
        "loss": {"contrastive": jnp.float32(1.0)},
        "outputs": {"image_embed": jnp.ones((2, 2), jnp.bfloat16), "count": jnp.int32(3)},
        "gradients": {"image": {"bias": jnp.zeros(2), "mlp": {"kernel": jnp.asarray(kernel)}}},
        "parameters": {"a": jnp.full(2, jnp.nan)},
    }
    assert (
        guard.first_nonfinite(trees)
        == "gradients: image/mlp/kernel [2, 3] (1 NaN, 2 infinite of 6)"
    )


@settings(max_examples=30)
@given(bad=st.sets(st.sampled_from(range(8))), value=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_the_first_in_the_given_order_is_named(bad, value):
    """Against a plain search: eight scalars in two trees, some of them bad."""
    leaves = [np.float32(value if i in bad else i) for i in range(8)]
    trees = {
        "z": {f"k{i}": leaves[i] for i in range(4)},
        "a": {f"k{i}": leaves[i] for i in range(4, 8)},
    }
    found = guard.first_nonfinite(trees)
    if not bad:
        assert found is None
    else:
        first = min(bad)
        assert found.startswith(f"{'z' if first < 4 else 'a'}: k{first} ")


def test_a_bare_array_goes_by_its_title():
    assert guard.first_nonfinite({"loss": jnp.float32(np.nan)}).startswith("loss [] (1 NaN")


def test_the_error_says_where_and_what_to_do():
    error = guard.NonFiniteError(12, "loss [] (1 NaN)", "runs/a", "runs/a/checkpoints/10")
    assert isinstance(error, ValueError)
    for words in ("Step 12", "loss []", "runs/a/checkpoints/10", "learning_rate", "--step=12"):
        assert words in str(error)
    assert "nothing was saved" in str(guard.NonFiniteError(1, None, "runs/a"))


def stops(stopping, values):
    """Whether it wants to stop, after each value of the metric."""
    wants = []
    for value in values:
        stopping.update({"other": 0.0, stopping.metric: value})
        wants.append(stopping.stopped)
    return wants


def test_early_stopping_waits_its_patience():
    stopping = guard.EarlyStopping("recall", patience=2, mode="max", min_delta=0.1)
    #   best 1.0, +0.05 is too little, new best 1.2, wait 1, and 2: NaN counts
    values = (1.0, 1.05, 1.2, 1.2, float("nan"))
    assert stops(stopping, values) == [False, False, False, False, True]
    assert stopping.best == 1.2


def test_early_stopping_never_takes_nan_as_the_best():
    stopping = guard.EarlyStopping("loss", patience=2, mode="min")
    assert stops(stopping, (float("nan"), 3.0, 2.0)) == [False, False, False]
    assert stopping.best == 2.0


def test_without_a_metric_it_never_stops():
    stopping = guard.EarlyStopping("", patience=1)
    for _ in range(3):
        stopping.update({"recall": 1.0})
        assert not stopping.stopped


def test_a_metric_that_no_evaluator_gives_is_named():
    with pytest.raises(ValueError, match=r"metric is 'recal'.*\['rank', 'recall'\]"):
        guard.EarlyStopping("recal", patience=1).update({"recall": 1.0, "rank": 2.0})


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

    stopping = guard.EarlyStopping("m", patience, mode)
    for n, value in enumerate(values, start=1):
        if n == cut:
            saved = stopping.state()
            stopping = guard.EarlyStopping("m", patience, mode)
            stopping.restore(saved)
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
        guard.EarlyStopping("m", **arguments)
