"""The variational bound beside integrals over densities; weights beside what they are to be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from mmjax.losses.diffusion import min_snr_weight, squared_error, variational_bound
from mmjax.sample.parameterization import TARGETS, clean_and_noise, target_of
from mmjax.sample.schedules import Schedule

SCHEDULE = Schedule("squared_cosine", 50)


def bound(x0, x, guess, fraction, time):
    """One dimension, by the definition, in bits: Bayes' rule and integrals."""
    betas = SCHEDULE.betas
    remaining = np.cumprod(1 - betas)
    before = remaining[time - 1] if time else 1.0
    likelihood = (1 - betas[time]) / betas[time]  # precision of x_{t-1} given x_t, then its prior

    def posterior(x0):
        precision = likelihood + 1 / (1 - before)
        mean = likelihood * x / np.sqrt(1 - betas[time]) + np.sqrt(before) * x0 / (1 - before)
        return mean / precision, precision**-0.5

    small = betas[time] * (1 - before) / (1 - remaining[time])
    if time == 0:
        small = betas[1] * (1 - remaining[0]) / (1 - remaining[1])
    part = (fraction + 1) / 2
    scale = np.sqrt(betas[time] ** part * small ** (1 - part))
    if time == 0:  # nothing but x0 remains
        edges = [x0 - 1 / 255, x0 + 1 / 255]
        edges = [-np.inf if x0 <= -1 else edges[0], np.inf if x0 >= 1 else edges[1]]
        return -np.log2(np.diff(stats.norm(guess, scale).cdf(edges))[0])
    truth, model = stats.norm(*posterior(x0)), stats.norm(posterior(guess)[0], scale)
    return integrate.quad(
        lambda z: truth.pdf(z) * (truth.logpdf(z) - model.logpdf(z)) / np.log(2),
        *truth.interval(1 - 1e-12),
    )[0]


def test_variational_bound_is_the_integral():
    rng = np.random.default_rng(0)
    time = np.array([0, 0, 0, 1, 7, 30, 49])
    x0 = np.array([-1, 1, 51 / 255, 0.3, -0.8, 0.5, 1])
    alpha, sigma = (np.asarray(y) for y in SCHEDULE.levels(jnp.asarray(time, jnp.float32)))
    x = alpha * x0 + sigma * rng.normal(size=7)
    guess, fraction = x0 + 0.02 * rng.normal(size=7), rng.uniform(-1, 1, 7)
    expected = [bound(*row) for row in zip(x0, x, guess, fraction, time, strict=True)]

    def ours(guess, fraction):
        columns = (jnp.asarray(y, jnp.float32)[:, None] for y in (x0, x, guess, fraction))
        betas = jnp.asarray(SCHEDULE.betas, jnp.float32)
        return variational_bound(*columns, betas, jnp.asarray(time, jnp.float32))

    found = ours(guess, fraction)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5)
    gradient = jax.grad(lambda *given: ours(*given).sum(), (0, 1))
    mean, variance = gradient(*(jnp.asarray(y, jnp.float32) for y in (guess, fraction)))
    assert not mean.any() and (variance != 0).all()


@pytest.mark.parametrize("target", TARGETS)
def test_targets_and_weights(target):
    """A weighted error of the target is min(SNR, gamma) times that of x0 it implies."""
    rng = np.random.default_rng(1)
    x0, noise, error = (jnp.asarray(rng.normal(size=(4, 3)), jnp.float32) for _ in range(3))
    alpha = jnp.asarray([[0.99], [0.9], [0.5], [0.1]]) * jnp.ones((1, 3))
    sigma = jnp.sqrt(1 - alpha**2)
    x = alpha * x0 + sigma * noise
    right = target_of(target, x0, noise, alpha, sigma)
    for given, expected in zip(clean_and_noise(target, right, x, alpha, sigma), (x0, noise)):
        np.testing.assert_allclose(given, expected, atol=2e-5)
    guess, _ = clean_and_noise(target, right + 0.1 * error, x, alpha, sigma)
    weight = min_snr_weight(target, alpha[:, 0], sigma[:, 0])
    limited = jnp.minimum(alpha[:, 0] ** 2 / sigma[:, 0] ** 2, 5.0)
    np.testing.assert_allclose(
        weight * squared_error(right + 0.1 * error, right),
        limited * squared_error(guess, x0),
        rtol=2e-4,
    )


def test_the_clean_sample_is_limited():
    x = jnp.asarray([[0.5, 0.5]])
    half = jnp.full((1, 2), 0.5)
    x0, noise = clean_and_noise("epsilon", jnp.asarray([[-2.0, 0.1]]), x, half, half, clip=1.0)
    np.testing.assert_allclose(x0, [[1.0, 0.9]])
    np.testing.assert_allclose(half * x0 + half * noise, x)
    with pytest.raises(ValueError, match="use one of epsilon, x0, v"):
        clean_and_noise("noise", x, x, half, half)


@pytest.mark.parametrize("name", ["continuous_linear", "continuous_cosine", "linear"])
def test_schedules_go_from_clean_to_noise(name):
    schedule = Schedule(name, 1000)
    uniform = jnp.linspace(0, 1, 33)
    time = schedule.draw(uniform)
    alpha, sigma = schedule.levels(time)
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-5)
    assert (jnp.diff(alpha) < 0).all() and alpha[0] > 0.999 and alpha[-1] < 0.01
    np.testing.assert_allclose(
        2 * np.log(alpha / sigma), schedule.log_snr(np.asarray(time)), rtol=1e-2, atol=1e-3
    )
