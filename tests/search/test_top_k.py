"""Exact top-k beside sorting everything in float64, where rounding could mislead it most."""

import numpy as np
import pytest

from mmjax.search import storage, top_k
from mmjax.search.top_k import Gallery


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def reference(vectors, queries, k):
    """Scores of the k best in float64, and all scores."""
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    return -np.sort(-scores, axis=1)[:, :k], scores


def crowd(n, dim, seed=0):
    """Vectors so close to one another that bf16 alone cannot order them."""
    rng = np.random.default_rng(seed)
    return unit(np.ones((1, dim)) + 0.05 * rng.standard_normal((n, dim)))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(top_k, "BLOCK", 64)
    monkeypatch.setattr(top_k, "CHUNK", 128)
    monkeypatch.setattr(top_k, "SIZES", (1, 8, top_k.QUERIES))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("n", [1, 31, 64, 129, 1000])
def test_it_finds_what_sorting_all_finds(n, dtype):
    vectors, queries = crowd(n, 24), crowd(9, 24, seed=1)
    scores, rows = Gallery(vectors, dtype=dtype).search(queries, 10)
    best, every = reference(vectors, queries, 10)
    assert scores.shape == rows.shape == (9, min(10, n))
    np.testing.assert_allclose(scores, best, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(every, rows, 1), best, atol=1e-6)
    assert all(len(set(r)) == len(r) for r in rows.tolist())
    for q in range(9):  # a query alone goes another way
        for together, alone in zip((scores, rows), Gallery(vectors).search(queries[q : q + 1], 10)):
            np.testing.assert_array_equal(alone, together[q : q + 1])


def test_bf16_alone_would_be_wrong_here():
    """That the second stage is what makes it exact, not an easy example."""
    import jax.numpy as jnp

    vectors, queries = crowd(1000, 24), crowd(9, 24, seed=1)
    rough = jnp.dot(
        jnp.asarray(queries, "bfloat16"),
        jnp.asarray(vectors.T, "bfloat16"),
        preferred_element_type=jnp.float32,
    )
    first = np.argsort(-np.asarray(rough), axis=1)[:, :10]
    best, every = reference(vectors, queries, 10)
    assert np.abs(np.take_along_axis(every, first, 1) - best).max() > 1e-5


def test_the_worst_rounding_of_all_factors_loses_nothing():
    """All 1,024 factors are halfway between two of bf16, and their errors add up: in bf16 row 0 is
    ahead of row 40 by 0.011, and in fact behind it by 0.004."""
    down, up = 2**-5 * (1 + 2**-8), 2**-5 * (1 + 3 * 2**-8)  # round to even
    query = np.repeat([up, down], 512)
    vectors = np.zeros((64, 1024), np.float32)
    vectors[0] = np.repeat([up, -down], 512)
    vectors[40] = -vectors[0]
    vectors[40, :20] = 0
    _, rows = Gallery(vectors, dtype="bfloat16").search(np.stack([query, query]), 1)
    assert reference(vectors, query[None], 1)[1].argmax() == 40
    assert rows.tolist() == [[40], [40]]


def test_of_equal_ones_the_first_comes_first():
    vectors = np.repeat(crowd(50, 16), 4, axis=0)
    _, rows = Gallery(vectors).search(vectors[40:41], 4)
    assert rows.tolist() == [[40, 41, 42, 43]]


@pytest.mark.parametrize("kind", storage.KINDS)
def test_it_is_exact_for_vectors_as_they_are_stored(kind, tmp_path):
    stored, scales = storage.encode(crowd(700, 32), kind)
    stored.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", stored.dtype, "r", shape=stored.shape)
    kept = stored.astype(np.float64) * (1 if scales is None else scales[:, None])
    assert np.abs(kept - crowd(700, 32)).max() < {"float32": 1e-9, "float16": 2e-4}.get(kind, 2e-3)
    for count in (3, 1):  # a query alone goes another way
        queries = crowd(count, 32, seed=2)
        scores, _ = Gallery(mapped, scales).search(queries, 5)
        np.testing.assert_allclose(scores, reference(kept, queries, 5)[0], atol=1e-6)


def test_queries_that_cannot_be_asked():
    gallery = Gallery(crowd(40, 16))
    with pytest.raises(ValueError, match=r"shape \(1, 8\) and must be finite vectors of 16"):
        gallery.search(np.ones((1, 8)), 3)
    with pytest.raises(ValueError, match="finite"):
        gallery.search(np.full((1, 16), np.nan), 3)
    with pytest.raises(ValueError, match="k is 0"):
        gallery.search(np.zeros((1, 16)), 0)
    assert gallery.search(np.zeros((0, 16)), 3)[1].shape == (0, 3)
    assert Gallery(np.zeros((0, 16), np.float16)).search(np.zeros((2, 16)), 3)[1].shape == (2, 0)
