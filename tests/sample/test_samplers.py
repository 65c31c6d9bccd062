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
