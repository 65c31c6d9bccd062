"""Average precision against its definition, and the evaluator of independent classes."""

import numpy as np

from mmjax.evals.metrics.average_precision import average_precision, mean_average_precision

RNG = np.random.default_rng(0)


def test_by_hand():
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    assert average_precision(scores, np.array([True, False, True, False])) == (1 + 2 / 3) / 2
    assert average_precision(scores, np.array([False, False, False, True])) == 1 / 4
    assert average_precision(scores, np.ones(4, bool)) == 1
    assert np.isnan(average_precision(scores, np.zeros(4, bool)))
    # The example of scikit-learn's documentation.
    scores, truth = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    np.testing.assert_allclose(average_precision(scores, truth), 0.8333, atol=1e-4)


def test_against_the_definition_with_ties():
    """The sum over thresholds of (recall gained) · precision."""
    for _ in range(20):
        scores, truth = RNG.integers(0, 6, 30).astype(float), RNG.random(30) < 0.3
        want, before = 0.0, 0.0
        for threshold in sorted(set(scores), reverse=True):
            above = scores >= threshold
            recall = (truth & above).sum() / truth.sum()
            want += (recall - before) * (truth & above).sum() / above.sum()
            before = recall
        np.testing.assert_allclose(average_precision(scores, truth), want)


def test_classes_without_examples_are_left_out():
    scores, truth = RNG.random((50, 4)), RNG.random((50, 4)) < 0.3
    truth[:, 2] = False
    each = [average_precision(scores[:, c], truth[:, c]) for c in (0, 1, 3)]
    np.testing.assert_allclose(mean_average_precision(scores, truth), np.mean(each))
    assert np.isnan(mean_average_precision(scores, np.zeros_like(truth)))
