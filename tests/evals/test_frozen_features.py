"""Linear probe and k-NN against first-order conditions, closed forms and loops."""

import numpy as np
import pytest

from mmjax.evals.knn import knn_scores
from mmjax.evals.linear_probe import fit_logistic, linear_probe


def cross_entropy(w, b, x, labels):
    loss = 0.0
    for row, label in zip(x, labels):
        logits = row @ w + b
        loss -= logits[label] - np.log(np.sum(np.exp(logits)))
    return loss / len(x)


def test_logistic_regression_with_no_features_that_help_gives_the_class_frequencies():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    w, b = fit_logistic(np.zeros((100, 2)), labels, 3, l2=0.1)
    p = np.exp(b) / np.exp(b).sum()
    np.testing.assert_allclose(p, [0.6, 0.3, 0.1], atol=1e-4)
    np.testing.assert_allclose(w, 0.0, atol=1e-8)


def test_logistic_regression_reaches_the_least_of_the_penalised_loss():
    rng = np.random.default_rng(0)
    x, labels, l2 = rng.normal(size=(40, 3)), rng.integers(0, 4, 40), 0.05
    w, b = fit_logistic(x, labels, 4, l2)

    def objective(w, b):
        return cross_entropy(w, b, x, labels) + 0.5 * l2 * np.sum(w**2)

    least = objective(w, b)
    step = 1e-4
    for i in np.ndindex(w.shape):
        nudge = np.zeros_like(w)
        nudge[i] = step
        slope = (objective(w + nudge, b) - objective(w - nudge, b)) / (2 * step)
        assert abs(slope) < 1e-3
    for _ in range(10):
        assert objective(w + rng.normal(size=w.shape) * 0.1, b) > least


def test_probe_separates_what_is_separable_and_not_noise():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 300)
    # The signal is tiny beside a column of noise: without standardising, l2 would drown it.
    signal = 1e-5 * (np.eye(3)[labels] + 0.05 * rng.normal(size=(300, 3)))
    signal = np.concatenate([signal, 1e3 * rng.normal(size=(300, 1))], axis=1)
    scores, _ = linear_probe(signal[:200], labels[:200], signal[200:], 3)
    assert (scores.argmax(1) == labels[200:]).mean() > 0.97
    noise = rng.normal(size=(300, 20))
    scores, l2 = linear_probe(noise[:200], labels[:200], noise[200:], 3)
    assert (scores.argmax(1) == labels[200:]).mean() < 0.55
    assert l2 >= 0.1  # a strong penalty is what the held-out fifth must choose


def test_knn_equals_loops():
    rng = np.random.default_rng(2)
    train, test = rng.normal(size=(30, 5)), rng.normal(size=(11, 5))
    labels = rng.integers(0, 4, 30)
    got = knn_scores(train, labels, test, 4, k=7, temperature=0.2, chunk_size=4)
    for n, x in enumerate(test):
        cosines = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in train]
        votes = np.zeros(4)
        for j in sorted(range(30), key=lambda j: -cosines[j])[:7]:
            votes[labels[j]] += np.exp(cosines[j] / 0.2)
        np.testing.assert_allclose(got[n] / got[n].sum(), votes / votes.sum(), rtol=1e-4)


def test_knn_survives_a_low_temperature_and_few_neighbours():
    votes = knn_scores(np.eye(2), np.array([0, 1]), np.eye(2), 2, k=20, temperature=1e-3)
    assert np.isfinite(votes).all()
    assert votes.argmax(1).tolist() == [0, 1]
    assert votes.max() == pytest.approx(1.0)
