"""Calibration and selective prediction beside torchmetrics, scikit-learn and closed forms."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmjax.evals.metrics import calibration, selective, uncertainty

GOLDEN = Path(__file__).parents[2] / "golden" / "calibration.json"


def golden():
    """Drawn logits that are 2.5 times too large, their labels, and what the libraries say."""
    found = json.loads(GOLDEN.read_text())
    return np.asarray(found["logits"]), np.asarray(found["labels"]), found


def test_metrics_equal_those_of_torchmetrics_and_scikit_learn():
    logits, labels, want = golden()
    confidence, right = uncertainty.confidences(logits, labels)
    for bins, value in want["ece"].items():  # torchmetrics bins in float32
        got = calibration.expected_calibration_error(confidence, right, int(bins))
        assert got == pytest.approx(value, abs=1e-6)
    found = uncertainty.uncertainty_metrics(logits, labels)
    assert found["nll"] == pytest.approx(want["nll"], rel=1e-12)
    assert found["brier"] == pytest.approx(want["brier"], rel=1e-12)
    temperature = calibration.fit_temperature(logits, labels)
    assert temperature == pytest.approx(want["temperature"], rel=1e-6)
    calibrated = uncertainty.uncertainty_metrics(logits / temperature, labels)
    assert calibrated["ece"] < 0.5 * found["ece"] and calibrated["nll"] < found["nll"]
    # A temperature keeps the predictions, and so the accuracy.
    assert uncertainty.confidences(logits / temperature, labels)[1].mean() == right.mean()


def test_the_bins_of_a_few_examples():
    confidence, right = np.array([0.2, 0.5, 0.50001, 1.0]), np.array([True, False, True, True])
    equal = calibration.reliability(confidence, right, bins=2)
    np.testing.assert_array_equal(equal.count, [2, 2])  # 0.5 is in the first: (0, 0.5]
    np.testing.assert_allclose(equal.confidence, [0.35, 0.750005])
    np.testing.assert_allclose(equal.accuracy, [0.5, 1])
    adaptive = calibration.reliability(confidence, right, bins=3, adaptive=True)
    np.testing.assert_array_equal(adaptive.count, [2, 1, 1])
    np.testing.assert_allclose(adaptive.confidence, [0.35, 0.50001, 1])
    few = calibration.reliability(confidence, right, bins=9, adaptive=True)
    np.testing.assert_array_equal(few.count, np.ones(4))
    gap = calibration.expected_calibration_error(confidence, right, 3, adaptive=True)
    assert gap == pytest.approx((2 * 0.15 + (1 - 0.50001)) / 4)


def slow_aurc(confidence, right):
    """The mean over random orders of equals is that over all orders: here by brute force."""
    rng, areas = np.random.default_rng(0), []
    for _ in range(4000):
        order = np.lexsort((rng.random(len(right)), -confidence))
        wrong = ~right[order]
        areas.append(np.mean([wrong[:k].mean() for k in range(1, len(right) + 1)]))
    return np.mean(areas)


def test_the_area_under_risk_and_coverage():
    confidence = np.array([0.9, 0.8, 0.8, 0.8, 0.3, 0.3])
    right = np.array([True, True, False, True, False, True])
    assert selective.aurc(confidence, right) == pytest.approx(
        slow_aurc(confidence, right), abs=4e-3
    )
    coverage, risk = selective.risk_coverage(confidence, right)
    np.testing.assert_allclose(coverage, np.arange(1, 7) / 6)
    np.testing.assert_allclose(risk, [0, 1 / 6, 2 / 9, 1 / 4, 3 / 10, 1 / 3])
    # Errors last: the best order, whose excess is 0; all equal: the error rate throughout.
    assert selective.excess_aurc(right.astype(float), right) == 0
    assert selective.aurc(np.ones(6), right) == pytest.approx(1 / 3)
    # Geifman et al. 2019, equation 2: the best area is about r + (1 - r) ln(1 - r).
    many = np.arange(20_000) >= 6_000
    assert selective.aurc(many.astype(float), many) == pytest.approx(
        0.3 + 0.7 * math.log(0.7), abs=1e-4
    )


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_no_order_is_better_than_errors_last(rows):
    confidence, right = (np.asarray(x) for x in zip(*rows))
    confidence = confidence / 5
    assert selective.excess_aurc(confidence, right) >= -1e-12
    for coverage in (0.1, 0.5, 1.0):
        kept = (confidence >= selective.threshold_of_coverage(confidence, coverage)).mean()
        above = (confidence > selective.threshold_of_coverage(confidence, coverage)).mean()
        assert above < coverage <= kept + 1e-9


def test_a_fit_keeps_what_was_asked_and_recovers_a_known_temperature():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20_000, 4))
    uniform = rng.gumbel(size=logits.shape)
    labels = (logits + uniform).argmax(1)  # drawn from softmax(logits)
    fitted = uncertainty.fit(3 * logits, labels, 0.7)
    assert fitted.temperature == pytest.approx(3, rel=0.05)
    confidence, _ = uncertainty.confidences(3 * logits / fitted.temperature, labels)
    assert (confidence >= fitted.threshold).mean() == pytest.approx(0.7, abs=1e-3)
    sure = np.eye(4)[labels]
    assert calibration.fit_temperature(sure, labels) < 2e-3  # where exp leaves float64
    assert calibration.fit_temperature(-sure, labels) == pytest.approx(1e3, rel=1e-6)


def test_what_makes_no_sense_is_refused():
    right = np.array([True])
    with pytest.raises(ValueError, match="Confidences run from 1.5 to 1.5"):
        calibration.reliability(np.array([1.5]), right)
    with pytest.raises(ValueError, match="from nan to nan"):
        calibration.reliability(np.array([np.nan]), right)
    with pytest.raises(ValueError, match="1 examples and 0 bins"):
        calibration.reliability(np.array([0.5]), right, bins=0)
    with pytest.raises(ValueError, match="at least one example"):
        selective.risk_coverage(np.empty(0), np.empty(0, bool))
    with pytest.raises(ValueError, match="coverage of 1.5 of 1 examples"):
        selective.threshold_of_coverage(np.array([0.5]), 1.5)
