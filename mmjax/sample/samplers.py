"""Samplers: from noise to a sample, one model call (Heun: two) per noise level, under `lax.scan`;
and back.

Each takes `predict(x [B, ...], time [B]) -> output`, the output's last axis being as long as that
of x, or twice as long with a learned variance, which only `ddpm` reads. What depends on the noise
levels alone is computed on the host in float64.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mmjax.sample.grid import Grid
from mmjax.sample.guidance import Predict
from mmjax.sample.parameterization import clean_and_noise
from mmjax.sample.progress import report

Noise = Callable[[Int[Array, ""]], Float[Array, "b ..."]]
VARIANCES = ("small", "large", "learned")
TINY = 1e-20  # the smallest variance whose logarithm is taken


class Process(NamedTuple):
    """What the samplers have in common.

    Attributes:
      target: what the model predicts, see `parameterization`.
      clip: limit of the predicted clean sample's values; None: none.
      frames: how many states between noise and sample are returned, evenly spaced; the last is the
        sample.
      score: (x [B, ...], time [B]) -> a gradient [B, ...] that is added to the score of the noised
        samples, as of a classifier or a CLIP (Dhariwal and Nichol 2021, arXiv 2105.05233, algorithm
        2); None: none.
    """

    grid: Grid
    target: str = "epsilon"
    clip: float | None = None
    frames: int = 0
    score: Predict | None = None


def ddpm(
    predict: Predict,
    x: Float[Array, "b ..."],
    noise: Noise,
    process: Process,
    variance: str = "small",
) -> tuple[Float[Array, "b ..."], Float[Array, "f b ..."]]:
    """Ancestral sampling: the sample, and the states between.

    Args:
      x: standard normal; noise: gives that of step i.
      variance: "small": of the posterior; "large": beta; "learned": between the two, by the
        model's output.

    Source: Ho et al. 2020 (arXiv 2006.11239), algorithm 2; learned variance: Nichol and Dhariwal
    2021 (arXiv 2102.09672), eq. 15.
    """
    if variance not in VARIANCES:
        raise ValueError(f"The variance is '{variance}'; use one of {', '.join(VARIANCES)}.")
    now, after = _neighbors(process.grid)
    beta = 1 - (now.alpha / after.alpha) ** 2
    posterior = (after.sigma / now.sigma) ** 2 * beta
    table = {
        "from_x0": after.alpha * beta / now.sigma**2,
        "from_x": now.alpha / after.alpha * (after.sigma / now.sigma) ** 2,
        "low": np.log(np.maximum(posterior, TINY)),
        "high": np.log(beta),
        "random": (after.sigma > 0).astype(np.float64),
    }

    def step(x, extra, row):
        output = predict(x, row["time"])
        x0, _ = _clean(process, output, x, row)
        if variance == "learned":
            part = (_rest(output, x) + 1) / 2
            log_variance = part * row["high"] + (1 - part) * row["low"]
        else:
            log_variance = row["low"] if variance == "small" else row["high"]
        mean = row["from_x0"] * x0 + row["from_x"] * x
        scale = row["random"] * jnp.exp(0.5 * log_variance)
        return mean + scale * noise(row["index"]), extra

    return _scan(step, x, (), table, process)


def ddim(
    predict: Predict,
    x: Float[Array, "b ..."],
    noise: Noise,
    process: Process,
    eta: float = 0.0,
) -> tuple[Float[Array, "b ..."], Float[Array, "f b ..."]]:
    """DDIM: the sample, and the states between; see `ddpm`.

    Args:
      eta: 0: deterministic, noise is not called; 1: with the posterior's variance.

    Source: Song et al. 2020 (arXiv 2010.02502), eq. 12 and 16.
    """
    now, after = _neighbors(process.grid)
    ratio = (now.alpha / after.alpha) ** 2
    random = eta * after.sigma / now.sigma * np.sqrt(1 - ratio)
    table = {
        "next_alpha": after.alpha,
        "direction": np.sqrt(np.maximum(after.sigma**2 - random**2, 0)),
        "random": random,
    }

    def step(x, extra, row):
        x0, epsilon = _clean(process, predict(x, row["time"]), x, row)
        x = row["next_alpha"] * x0 + row["direction"] * epsilon
        return (x + row["random"] * noise(row["index"]) if eta else x), extra

    return _scan(step, x, (), table, process)


def invert(
    predict: Predict, x: Float[Array, "b ..."], process: Process, iterations: int = 1
) -> Float[Array, "b ..."]:
    """The noise from which `ddim` with eta 0 makes a sample, for a process without `clip`.

    Args:
      x: the sample.
      iterations: model calls per level. In the first the model sees the less noisy state in place
        of the one that is sought, as in the source; each further one sees what was found before,
        which converges to the state whose step of DDIM ends in the given one.

    Source: Dhariwal and Nichol 2021 (arXiv 2105.05233), appendix F; the iterations: Pan et al. 2023
    (arXiv 2309.04907), section 3.2.
    """
    now, after = _neighbors(process.grid)
    table = {"next_alpha": after.alpha, "next_sigma": after.sigma}

    def step(x, extra, row):
        def nearer(_, guess):
            _, epsilon = _clean(process, predict(guess, row["time"]), guess, row)
            x0 = (x - row["next_sigma"] * epsilon) / row["next_alpha"]
            return row["alpha"] * x0 + row["sigma"] * epsilon

        return jax.lax.fori_loop(0, iterations, nearer, x), extra

    return _scan(step, x, (), table, process._replace(frames=0), reverse=True)[0]


def dpm_solver(
    predict: Predict, x: Float[Array, "b ..."], process: Process
) -> tuple[Float[Array, "b ..."], Float[Array, "f b ..."]]:
    """DPM-Solver++(2M): the sample, and the states between; deterministic.

    The first and the last step are of first order.

    Source: Lu et al. 2022 (arXiv 2211.01095), algorithm 2.
    """
    now, after = _neighbors(process.grid)
    with np.errstate(divide="ignore"):
        span = np.log(process.grid.alpha) - np.log(process.grid.sigma)  # the last is infinite
    step_size = np.diff(span)
    order2 = np.zeros_like(step_size)
    order2[1:-1] = step_size[1:-1] / step_size[:-2] / 2
    table = {
        "from_x": after.sigma / now.sigma,
        "from_x0": -after.alpha * np.expm1(-step_size),
        "order2": order2,
    }

    def step(x, previous, row):
        x0, _ = _clean(process, predict(x, row["time"]), x, row)
        extrapolated = x0 + row["order2"] * (x0 - previous)
        return row["from_x"] * x + row["from_x0"] * extrapolated, x0

    return _scan(step, x, jnp.zeros_like(x), table, process)


def heun(
    predict: Predict, x: Float[Array, "b ..."], process: Process
) -> tuple[Float[Array, "b ..."], Float[Array, "f b ..."]]:
    """Heun's method on the probability flow: the sample, and the states between; deterministic.

    Two model calls per step, one in the last.

    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 1, in x / alpha.
    """
    now, after = _neighbors(process.grid)
    table = {
        "next_alpha": after.alpha,
        "next_sigma": after.sigma,
        "step_size": after.sigma / after.alpha - now.sigma / now.alpha,
        "next_time": np.append(process.grid.times[1:], 0.0),
        "last": (after.sigma == 0).astype(np.float64),
    }

    def step(x, extra, row):
        _, slope = _clean(process, predict(x, row["time"]), x, row)
        start = x / row["alpha"]

        def corrected(guess):
            level = {name: row[f"next_{name}"] for name in ("alpha", "sigma", "time")}
            _, end = _clean(process, predict(guess, row["next_time"]), guess, level)
            return row["next_alpha"] * (start + row["step_size"] * (slope + end) / 2)

        guess = row["next_alpha"] * (start + row["step_size"] * slope)
        return jax.lax.cond(row["last"] > 0, lambda x: x, corrected, guess), extra

    return _scan(step, x, (), table, process)


def _neighbors(grid: Grid) -> tuple[Grid, Grid]:
    """The levels before and after each step."""
    return (
        Grid(grid.times, grid.alpha[:-1], grid.sigma[:-1]),
        Grid(grid.times, grid.alpha[1:], grid.sigma[1:]),
    )


def _clean(process: Process, output: Any, x: Any, row: dict[str, Any]) -> tuple[Any, Any]:
    mean, level = output[..., : x.shape[-1]], (row["alpha"], row["sigma"])
    if process.score is None:
        return clean_and_noise(process.target, mean, x, *level, process.clip)
    _, noise = clean_and_noise(process.target, mean, x, *level)
    noise = noise - row["sigma"] * process.score(x, row["time"])
    return clean_and_noise("epsilon", noise, x, *level, process.clip)


def _rest(output: Any, x: Any) -> Any:
    """The part of a model's output for the variance."""
    if output.shape[-1] != 2 * x.shape[-1]:
        raise ValueError(
            f"The model gives {output.shape[-1]} channels for {x.shape[-1]} of a sample, and a "
            "learned variance takes twice as many: choose the variance 'small' or 'large'."
        )
    return output[..., x.shape[-1] :]


def _scan(
    step: Callable,
    x: Any,
    extra: Any,
    table: dict[str, Any],
    process: Process,
    reverse: bool = False,
) -> Any:
    """Run `step(x, extra, row) -> (x, extra)` over the levels, keeping the frames.

    Args:
      reverse: begin with the clean end.
    """
    steps, frames = len(process.grid.times), process.frames
    if frames > steps:
        raise ValueError(f"{frames} frames of {steps} steps of sampling: take at most {steps}.")
    kept = np.linspace(0, steps, frames + 1).round().astype(int)[1:] - 1 if frames else []
    slots = np.full(steps, frames, np.int32)  # an index out of bounds: not kept
    slots[kept] = np.arange(frames)
    now, _ = _neighbors(process.grid)
    floats = {"alpha": now.alpha, "sigma": now.sigma, **table}
    rows = {name: jnp.asarray(values, jnp.float32) for name, values in floats.items()}
    times = {"time": process.grid.times, "next_time": table.get("next_time")}
    for name, values in times.items():
        if values is not None:  # one for each row of x
            spread = np.broadcast_to(values[:, None], (steps, len(x)))
            rows[name] = jnp.asarray(spread, jnp.float32)
    rows |= {"index": jnp.arange(steps), "slot": jnp.asarray(slots)}

    def body(carry, row):
        x, extra, film = carry
        x, extra = step(x, extra, row)
        if frames:
            film = film.at[row["slot"]].set(x, mode="drop")
        report(steps - 1 - row["index"] if reverse else row["index"], steps)
        return (x, extra, film), None

    film = jnp.zeros((frames, *x.shape), x.dtype)
    (x, _, film), _ = jax.lax.scan(body, (x, extra, film), rows, reverse=reverse)
    return x, film
