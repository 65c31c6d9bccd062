"""The processors against loops, drawn tokens against their distribution, top_k against a sort."""

import jax
import numpy as np
import pytest

from mmjax.decode import logits as processors
from mmjax.decode import sampling
from mmjax.decode.settings import Settings
from mmjax.decode.top_k import top_k

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("size", "k"), [(7, 7), (50, 3), (1000, 5), (50_257, 5), (4099, 60)])
def test_top_k_is_that_of_a_sort(size, k):
    x = RNG.normal(size=(3, size)).astype(np.float32)
    x[1, : size // 2] = -np.inf
    x[2] = np.sort(x[2])  # the best lie together
    values, index = jax.jit(top_k, static_argnums=1)(x, k)
    expected = -np.sort(-x, axis=1)[:, :k]
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(np.take_along_axis(x, np.asarray(index), 1), expected)
    finite = np.isfinite(expected).all(1)
    assert all(len(set(row)) == k for row in np.asarray(index)[finite].tolist())


def test_repetition_penalty_is_that_of_the_loop():
    logits = RNG.normal(size=(3, 8)).astype(np.float32)
    history, count = RNG.integers(0, 8, (3, 5)).astype(np.int32), np.asarray([5, 0, 2])
    expected = logits.copy()
    for r in range(3):
        for t in set(history[r, : count[r]].tolist()):
            expected[r, t] = logits[r, t] / 1.3 if logits[r, t] > 0 else logits[r, t] * 1.3
    found = processors.repetition_penalty(logits, history, count, 1.3)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_no_repeat_ngram_is_that_of_the_loop(n):
    logits = RNG.normal(size=(40, 4)).astype(np.float32)
    history = RNG.integers(0, 4, (40, 8)).astype(np.int32)
    count = RNG.integers(0, 9, 40)
    expected = logits.copy()
    for r in range(40):
        ids = history[r, : count[r]].tolist()
        for i in range(len(ids) - n + 1):
            if ids[i : i + n - 1] == ids[len(ids) - n + 1 :]:
                expected[r, ids[i + n - 1]] = -np.inf
        if np.isneginf(expected[r]).all():  # then there would be nothing to say
            expected[r] = logits[r]
    found = jax.jit(processors.no_repeat_ngram, static_argnums=3)(logits, history, count, n)
    np.testing.assert_array_equal(found, expected)


def distribution(logits, s):
    """What should be drawn from, by sorting in plain numpy."""
    x = logits.astype(np.float64) / s.temperature
    order = np.argsort(-x)
    kept = order[: s.top_k] if s.top_k else order
    p = np.exp(x[kept] - x.max())
    p /= p.sum()
    size = int(np.searchsorted(np.cumsum(p), s.top_p) + 1) if s.top_p < 1 else len(p)
    out = np.zeros(len(x))
    out[kept[:size]] = p[:size] / p[:size].sum()
    return out


@pytest.mark.parametrize(
    "settings",
    [
        Settings(1, temperature=1.0),
        Settings(1, temperature=0.6, top_k=4),
        Settings(1, temperature=1.3, top_p=0.7),
        Settings(1, temperature=2.0, top_k=6, top_p=0.8),
    ],
)
def test_tokens_are_drawn_from_their_distribution(settings):
    n = 20_000
    logits = RNG.normal(size=12).astype(np.float32)
    choose = jax.jit(lambda x, key: sampling.choose(settings, x, key))
    drawn = choose(np.broadcast_to(logits, (n, 12)), jax.random.key(1))
    counts, p = np.bincount(drawn, minlength=12), distribution(logits, settings)
    assert counts[p == 0].sum() == 0
    expected = n * p[p > 0]
    chi2 = ((counts[p > 0] - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1
    # chi-square exceeds this with probability about 1e-5 (Wilson and Hilferty 1931)
    limit = freedom * (1 - 2 / (9 * freedom) + 4.27 * np.sqrt(2 / (9 * freedom))) ** 3
    assert chi2 < limit
