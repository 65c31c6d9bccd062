"""The evidential loss beside SciPy's Dirichlet distribution."""

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.special import gammaln

from mmjax.losses.classification import check_evidential, classification_loss
from mmjax.losses.evidential import concentration, evidential_loss

LOGITS = np.random.default_rng(0).normal(0, 2, (5, 4)).astype(np.float32)
LABELS = np.array([0, 3, 2, 1, 1])


def expected(logits, labels, weight):
    """Moments and entropy of SciPy's Dirichlet: its divergence from the uniform one is minus the
    entropy minus log Gamma(C)."""
    losses = []
    for z, label in zip(logits.astype(np.float64), labels):
        alpha, y = 1 + np.exp(z), np.eye(len(z))[label]
        dirichlet = stats.dirichlet(alpha)
        error = np.sum((y - dirichlet.mean()) ** 2 + dirichlet.var())
        misleading = stats.dirichlet(np.where(y == 1, 1.0, alpha))
        losses.append(error - weight * (misleading.entropy() + gammaln(len(z))))
    return np.asarray(losses)


def test_it_is_the_expected_error_and_a_divergence():
    one_hot = np.eye(4, dtype=np.float32)[LABELS]
    for weight in (0.0, 0.4):
        got = evidential_loss(LOGITS, one_hot, weight)
        np.testing.assert_allclose(got, expected(LOGITS, LABELS, weight), rtol=1e-5, atol=1e-6)
        terms = classification_loss(LOGITS, {"label": LABELS}, evidential=weight)
        np.testing.assert_array_equal(terms["classification"].value, got)
    # softplus of the logits are logits of the distribution's mean.
    alpha = np.asarray(concentration(LOGITS))
    np.testing.assert_allclose(
        jax.nn.softmax(jax.nn.softplus(LOGITS)), alpha / alpha.sum(1, keepdims=True), rtol=1e-5
    )


def test_certain_and_misleading_logits_are_not_rounded_away():
    logits = np.array([[9, 7, -3], [-9, 14, 2], [18, 18, 17]], np.float32)
    labels = np.array([0, 0, 2])
    one_hot = np.eye(3, dtype=np.float32)[labels]
    got, gradient = jax.vmap(
        jax.value_and_grad(lambda z, y: evidential_loss(z[None], y[None], 1.0)[0])
    )(logits, one_hot)
    np.testing.assert_allclose(got, expected(logits, labels, 1.0), rtol=1e-5)
    assert np.all(np.asarray(gradient)[[1, 2], [1, 0]] > 0.1)  # misleading evidence goes down
    far = jax.grad(lambda z: evidential_loss(z, one_hot, 1.0).sum())(logits * 1e4)
    assert np.isfinite(far).all()


def test_settings_that_contradict_it_are_refused():
    check_evidential(None, 0.1, True)
    check_evidential(((0, 0.0), (100, 1.0)), 0.0)
    with pytest.raises(ValueError, match="config.loss.evidential has the value -1"):
        check_evidential(-1.0, 0.0)
    for settings in ((1.0, 0.1), (1.0, 0.0, True)):
        with pytest.raises(ValueError, match="set label_smoothing to 0 and independent"):
            check_evidential(*settings)
