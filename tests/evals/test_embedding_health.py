"""Embedding health against closed forms and double loops."""

import numpy as np
import pytest

from mmjax.evals.embedding_health import (
    alignment,
    health_metrics,
    modality_gap,
    similarity_histograms,
    uniformity,
)


def unit(rng, *shape):
    x = rng.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def test_closed_forms():
    east, west = np.array([[1.0, 0.0]] * 3), np.array([[-1.0, 0.0]] * 5)
    assert modality_gap(east, west) == pytest.approx(2.0)
    assert modality_gap(east, east[:1]) == pytest.approx(0.0)
    assert alignment(east, west[:3]) == pytest.approx(4.0)
    assert uniformity(east) == pytest.approx(0.0)  # all at one point: the worst
    # Two opposite points: d^2 = 4 for the one pair.
    assert uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8.0)


def test_uniformity_equals_the_double_loop_in_any_chunks():
    x = unit(np.random.default_rng(0), 23, 6)
    pairs = [
        np.exp(-2 * np.sum((x[i] - x[j]) ** 2)) for i in range(23) for j in range(23) if i != j
    ]
    for chunk in (1, 7, 100):
        assert uniformity(x, chunk) == pytest.approx(np.log(np.mean(pairs)), abs=1e-5)


def test_uniformity_of_points_spread_evenly_on_a_high_sphere():
    # For independent uniform unit vectors in dimension d, cos is about N(0, 1/d), so that
    # E exp(4 (cos - 1)) = exp(-4 + 8 / d).
    x = unit(np.random.default_rng(1), 2000, 256)
    assert uniformity(x) == pytest.approx(-4 + 8 / 256, abs=0.01)


def test_histograms_and_means_equal_loops():
    rng = np.random.default_rng(3)
    image, text = unit(rng, 9, 3), unit(rng, 14, 3)
    index = np.concatenate([np.arange(9), rng.integers(0, 9, 5)])
    edges, positive, negative = similarity_histograms(
        image, text, [np.array([i]) for i in index], chunk_size=4
    )
    assert positive.sum() == 14
    assert negative.sum() == 9 * 14 - 14
    centres = (edges[1:] + edges[:-1]) / 2
    mine = [float(image[index[m]] @ text[m]) for m in range(14)]
    other = [float(image[n] @ text[m]) for n in range(9) for m in range(14) if index[m] != n]
    # The mean of the bins' centres is within half a bin of the mean.
    assert (centres @ positive) / 14 == pytest.approx(np.mean(mine), abs=0.01)
    assert (centres @ negative) / len(other) == pytest.approx(np.mean(other), abs=0.01)
    metrics = health_metrics(image, text, index)
    assert metrics["positive_cosine"] == pytest.approx(np.mean(mine), abs=1e-6)
    assert metrics["negative_cosine"] == pytest.approx(np.mean(other), abs=1e-6)
