"""The rules of timestamps against transformers, and by what they must give."""

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from mmjax.decode.timestamps import NotFirst, TimestampRules

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "timestamp_rules.safetensors")
END, NO_TIMESTAMPS, FIRST = 20, 24, 25


@pytest.mark.parametrize("max_initial", [3, None])
def test_rules_are_those_of_transformers(max_initial):
    rules = TimestampRules(FIRST, END, NO_TIMESTAMPS, max_initial)
    half = slice(24) if max_initial else slice(24, None)
    given = {name: x[half] for name, x in GOLDEN.items()}
    names = ("logits", "history", "count", "new")
    found = jax.jit(jax.vmap(rules))(*(given[name] for name in names))
    np.testing.assert_array_equal(found, given["expected"])


def test_a_sampled_text_follows_the_rules():
    rules, rng = TimestampRules(FIRST, END, NO_TIMESTAMPS, 3), np.random.default_rng(1)
    step, rows, slots = jax.jit(rules), 8, 12
    history = np.zeros((rows, slots), np.int32)
    for new in range(slots - 1):
        logits = rng.normal(size=(rows, 40)).astype(np.float32)
        logits[:, END:FIRST] = -np.inf  # no text ends
        count = np.full(rows, 1 + new, np.int32)
        logits = np.array(step(logits, history, count, np.int32(new)))
        history[:, 1 + new] = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    for row in history[:, 1:].tolist():
        times = [t for t in row if t >= FIRST]
        assert FIRST <= row[0] <= FIRST + 3
        assert times == sorted(times)
        # Pairs of timestamps: after the first, an odd number ends a segment, and two are equal or
        # increase; three in a row never occur.
        kinds = "".join("t" if t >= FIRST else "w" for t in row)
        assert "ttt" not in kinds and not kinds.startswith("tt")


def test_some_tokens_are_never_first():
    logits = np.zeros((2, 5), np.float32)
    rule = jax.jit(NotFirst((1, 4)))
    history, count = np.zeros((2, 3), np.int32), np.ones(2, np.int32)
    first = np.asarray(rule(logits, history, count, np.int32(0)))
    assert np.isneginf(first[:, [1, 4]]).all() and not first[:, [0, 2, 3]].any()
    assert not np.asarray(rule(logits, history, count, np.int32(1))).any()
