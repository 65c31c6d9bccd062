"""The estimates of an ensemble: closed forms, and what holds for any members."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmjax.evals.metrics.calibration import log_softmax
from mmjax.evals.metrics.ensemble import ensemble, ensemble_logits, ensemble_metrics


def drawn(seed, members, rows=6, classes=4):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, rng.choice([0.1, 3, 40]), (members, rows, classes))
    return logits, rng.integers(0, classes, rows)


def test_two_members_that_are_certain_of_different_classes():
    p = np.array([[[1.0, 0, 0], [0.5, 0.5, 0]], [[0, 1.0, 0], [0.5, 0.5, 0]]])
    found = ensemble(p)
    np.testing.assert_allclose(found.mean, [[0.5, 0.5, 0]] * 2)
    np.testing.assert_allclose(found.entropy, np.log([2, 2]))
    # The first is all disagreement, the second none: both have the same mean.
    np.testing.assert_allclose(found.mutual_information, [np.log(2), 0], atol=1e-15)
    np.testing.assert_allclose(found.variance, [0.25, 0])


@given(st.integers(0, 1000), st.integers(1, 5))
def test_of_any_members(seed, members):
    logits, labels = drawn(seed, members)
    p = np.exp([log_softmax(x) for x in logits])
    found = ensemble(p)
    np.testing.assert_allclose(found.mean.sum(1), 1)
    assert (found.mutual_information >= 0).all() and (found.variance >= 0).all()
    assert (found.mutual_information <= np.log(members) + 1e-9).all()
    assert (found.mutual_information <= found.entropy + 1e-9).all()
    assert (found.variance <= 0.25 + 1e-12).all()
    # The mutual information is the mean divergence of the members from their mean.
    q = found.mean[None]
    ratio = np.log(np.maximum(p, 1e-300)) - np.log(np.maximum(q, 1e-300))
    divergence = (p * ratio).sum(-1).mean(0)
    np.testing.assert_allclose(found.mutual_information, divergence, atol=1e-9)
    for other, same in zip(ensemble(p[::-1]), found):
        np.testing.assert_allclose(other, same, atol=1e-12)
    # A member that is there twice as often as the others changes nothing if it is their mean.
    both = ensemble(np.concatenate([p, found.mean[None]]))
    np.testing.assert_allclose(both.mean, found.mean, atol=1e-12)
    assert (both.mutual_information <= found.mutual_information + 1e-9).all()
    softmax = np.exp(log_softmax(ensemble_logits(list(logits))))
    np.testing.assert_allclose(softmax, found.mean, atol=1e-12)


@given(st.integers(0, 1000))
def test_the_mean_is_no_worse_than_its_members_and_equal_members_agree(seed):
    logits, labels = drawn(seed, 3)
    metrics = ensemble_metrics(list(logits), labels)
    together = -log_softmax(ensemble_logits(list(logits)))[np.arange(len(labels)), labels].mean()
    assert together <= metrics["member_nll"] + 1e-9  # Jensen's inequality
    same = ensemble_metrics([logits[0]] * 3, labels)
    assert same["mutual_information"] == pytest.approx(0, abs=1e-12)
    assert same["variance"] == pytest.approx(0, abs=1e-12)
