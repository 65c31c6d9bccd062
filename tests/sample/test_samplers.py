"""Whole trajectories against the schedulers of diffusers, and what holds for any sampler."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from mmjax.sample import samplers
from mmjax.sample.grid import Grid, at_times, even, karras
from mmjax.sample.guidance import guided
from mmjax.sample.progress import reported
from mmjax.sample.schedules import Schedule
from mmjax.sample.settings import SAMPLERS, Settings, draw

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "samplers.safetensors")
LINEAR, COSINE = Schedule("linear"), Schedule("squared_cosine")
# As `CASES` of tests/golden/make_samplers.py: sampler, schedule, options, the rest of `Process`.
CASES = {
    "ddpm_small": ("ddpm", LINEAR, {"variance": "small"}, {"clip": 1.0}),
    "ddpm_large": ("ddpm", COSINE, {"variance": "large"}, {"target": "v"}),
    "ddpm_learned": ("ddpm", LINEAR, {"variance": "learned"}, {"clip": 1.0}),
    "ddpm_all": ("ddpm", None, {"variance": "small"}, {}),
    "unclip_learned": ("ddpm", COSINE, {"variance": "learned"}, {"clip": 1.0}),
    "unclip_x0": ("ddpm", COSINE, {"variance": "small"}, {"target": "x0", "clip": 0.7}),
    "ddim": ("ddim", Schedule("scaled_linear"), {}, {"clip": 1.0}),
    "ddim_eta": ("ddim", COSINE, {"eta": 1.0}, {"target": "v"}),
    "dpm_solver": ("dpm_solver", LINEAR, {}, {}),
    "dpm_solver_v": ("dpm_solver", COSINE, {}, {"target": "v"}),
    "euler": ("ddim", LINEAR, {}, {}),
    "heun": ("heun", LINEAR, {}, {}),
}


class Twenty(Schedule):
    """20 steps of the betas of 1,000, as diffusers has them for any number of steps."""

    @property
    def betas(self):
        return np.linspace(1e-4, 0.02, 20)


def toy(x, time):
    """The model of tests/golden/make_samplers.py."""
    time = time[:, None]
    mean = 0.8 * jnp.tanh(x + 0.3 * jnp.broadcast_to(jnp.sin(time / 150), x.shape))
    return jnp.concatenate([mean, jnp.sin(3 * x + jnp.broadcast_to(time / 300, x.shape))], axis=-1)


@pytest.mark.parametrize("name", CASES)
def test_whole_trajectories_are_those_of_diffusers(name):
    sampler, schedule, options, rest = CASES[name]
    schedule = schedule or Twenty("linear", 20)
    times, states = GOLDEN[f"{name}/times"], GOLDEN[f"{name}/x"]
    grid = karras(schedule, 12) if sampler == "heun" else at_times(schedule, times)
    if sampler == "heun":
        sigma = GOLDEN["heun/sigma"].astype(np.float64)
        np.testing.assert_allclose(grid.sigma / grid.alpha, sigma, rtol=1e-4)
        # Theirs follow from float32(0.9999), and the way from noise to x0 enlarges the error.
        grid = Grid(times, (1 + sigma**2) ** -0.5, sigma * (1 + sigma**2) ** -0.5)
    if name in ("ddpm_small", "unclip_learned"):
        np.testing.assert_array_equal(even(schedule, len(times)).times, times)
    np.testing.assert_allclose(grid.times, times, rtol=1e-4)
    process = samplers.Process(grid, frames=len(times), **rest)
    noise = jnp.asarray(GOLDEN["noise"])
    needed = {"noise": lambda i: noise[i]} if sampler in ("ddpm", "ddim") else {}
    run = jax.jit(
        lambda x: getattr(samplers, sampler)(toy, x, process=process, **needed, **options)
    )
    # Heun's method starts from sigma times the noise in diffusers, without alpha x0.
    start = GOLDEN["start"] * (np.float32(grid.sigma[0]) if sampler == "heun" else 1)
    _, film = run(jnp.asarray(start))
    if name in ("euler", "heun"):  # which are in x / alpha
        film = film / grid.alpha[1:].astype(np.float32)[:, None, None]
    if "unclip" in name:  # whose last step multiplies x0 by a 1 that is rounded to 0.9995
        beta = np.float32(COSINE.betas[0])
        film = film.at[-1].multiply(beta / (1 - (1 - beta)))
    for ours, theirs in zip(film, states, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(1, np.abs(theirs).max()))


def normal_mixture(schedule):
    """The exact noise prediction for x0 that is +1 or -1 with equal chance."""

    def predict(x, time):
        alpha, sigma = (y[:, None] for y in schedule.levels(time))
        alpha, sigma = jnp.broadcast_to(alpha, x.shape), jnp.broadcast_to(sigma, x.shape)
        return (x - alpha * jnp.tanh(alpha * x / sigma**2)) / sigma

    return predict


@pytest.mark.parametrize("schedule", [COSINE, Schedule("continuous_cosine")])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_exact_model_gives_the_data(sampler, schedule):
    keys = jax.random.split(jax.random.key(3), 256)
    settings = Settings(sampler, steps=40, frames=3)
    predict = normal_mixture(schedule)
    run = jax.jit(lambda keys: draw(predict, keys, (2,), schedule, settings))
    x, film = run(keys)
    assert (jnp.abs(jnp.abs(x) - 1) < 0.05).mean() > 0.97
    assert abs(float(jnp.sign(x).mean())) < 0.13  # 512 fair coins: 3 standard deviations
    np.testing.assert_array_equal(film[-1], x)
    alone, _ = run(keys[5:6])
    np.testing.assert_allclose(alone, x[5:6], atol=1e-6)


def gaussian(schedule, mean=0.5, deviation=0.7):
    """The exact noise prediction for x0 that is normal: linear in x."""

    def predict(x, time):
        alpha, sigma = (jnp.broadcast_to(y[:, None], x.shape) for y in schedule.levels(time))
        return sigma * (x - alpha * mean) / (alpha**2 * deviation**2 + sigma**2)

    return predict


def no_noise(step):
    """For a sampler that calls for none."""
    return jnp.zeros(1)


def test_inversion_finds_the_noise_that_ddim_started_from():
    # Where alpha is not so small that dividing by it makes rounding count.
    times = np.arange(800, -1, -40)
    process = samplers.Process(at_times(COSINE, times))
    start = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    # A linear model: DDIM is one linear map of each number, whose inverse is known.
    predict = gaussian(COSINE)
    there = jax.jit(lambda x: samplers.ddim(predict, x, no_noise, process)[0])
    offset, slope = np.asarray(there(jnp.asarray([[0.0] * 4, [1.0] * 4], jnp.float32)))[:, 0]
    slope -= offset
    x0 = np.asarray(there(start))
    np.testing.assert_allclose(x0, offset + slope * start, atol=1e-5)
    back = [jax.jit(lambda x, n=n: samplers.invert(predict, x, process, n))(x0) for n in (1, 20)]
    np.testing.assert_allclose(back[1], (x0 - offset) / slope, atol=2e-5)
    np.testing.assert_allclose(back[1], start, atol=2e-5)
    assert 1e-3 < np.abs(back[0] - start).max() < 0.3  # one call for each level is approximate
    # A model that is not linear, and predicts v.
    process = process._replace(target="v")

    def model(x, time):
        return toy(x, time)[..., :4]

    x0 = jnp.asarray(start) * 0.5
    found = jax.jit(lambda x: samplers.invert(model, x, process, 10))(x0)
    again = jax.jit(lambda x: samplers.ddim(model, x, no_noise, process)[0])(found)
    np.testing.assert_allclose(again, x0, atol=1e-3)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_score_moves_samples_as_bayes_rule_says(sampler):
    """A normal prior of x0 and a normal likelihood of it: the posterior is known."""
    schedule, mean, deviation, seen, error = Schedule("continuous_cosine"), 0.5, 0.7, -1.0, 0.5

    def score(x, time):
        """d/dx of log p(seen | x)."""
        alpha, sigma = (jnp.broadcast_to(y[:, None], x.shape) for y in schedule.levels(time))
        variance = alpha**2 * deviation**2 + sigma**2
        gain = alpha * deviation**2 / variance
        guess = mean + gain * (x - alpha * mean)
        return gain * (seen - guess) / (deviation**2 * sigma**2 / variance + error**2)

    keys = jax.random.split(jax.random.key(1), 2000)
    settings = Settings(sampler, steps=60)
    run = jax.jit(lambda k: draw(gaussian(schedule), k, (2,), schedule, settings, score=score)[0])
    found, precision = np.asarray(run(keys)), deviation**-2 + error**-2
    expected = (mean / deviation**2 + seen / error**2) / precision
    assert abs(found.mean() - expected) < 0.03
    assert abs(found.std() - precision**-0.5) < 0.03


def test_guidance_extrapolates_and_takes_the_conditional_variance():
    def predict(x, time):
        given = jnp.arange(len(x) * 6, dtype=jnp.float32).reshape(len(x), 6)
        return given + time[:, None] + 0 * jnp.concatenate([x, x], axis=-1)

    given = guided(predict, 3.0)(jnp.zeros((2, 3)), jnp.full(2, 10.0))
    condition, nothing = np.arange(12).reshape(2, 6) + 10, np.arange(12, 24).reshape(2, 6) + 10
    expected = condition.copy()
    expected[:, :3] = nothing[:, :3] + 3 * (condition - nothing)[:, :3]
    np.testing.assert_array_equal(given, expected)


def test_steps_are_reported_as_they_are_computed():
    seen = []
    keys = jax.random.split(jax.random.key(0), 2)
    with reported(lambda step, steps: seen.append((step, steps))):
        draw(normal_mixture(LINEAR), keys, (1,), LINEAR, Settings("ddim", steps=4))
    jax.effects_barrier()
    assert sorted(seen) == [(i, 4) for i in range(4)]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: Settings("dpm"), "Did you mean 'ddpm'"),
        (lambda: Settings(steps=0), "sample.steps is 0"),
        (lambda: Settings("heun", eta=0.5), "'heun' does not have"),
        (lambda: Settings(frames=51), "from 0 to steps, 50"),
        (lambda: even(Schedule("linear", 100), 101), "take from 1 to 100"),
        (lambda: at_times(LINEAR, [10, 20]), "must decrease"),
        (lambda: Schedule("quadratic"), "use one of linear"),
    ],
)
def test_wrong_settings_are_named(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()


def test_a_model_without_a_learned_variance_is_named():
    settings = Settings("ddpm", steps=3, variance="learned")
    keys = jax.random.split(jax.random.key(0), 2)
    with pytest.raises(ValueError, match="choose the variance 'small' or 'large'"):
        draw(normal_mixture(LINEAR), keys, (4,), LINEAR, settings)
