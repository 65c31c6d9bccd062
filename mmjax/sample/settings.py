"""How to draw samples from a diffusion model, and their checks."""

import dataclasses
from collections.abc import Sequence

from jaxtyping import Array, Float, Key

from mmjax.config import nearest
from mmjax.number import check_finite
from mmjax.sample import samplers
from mmjax.sample.grid import Grid, even, karras
from mmjax.sample.guidance import Predict
from mmjax.sample.rows import normal, numbered
from mmjax.sample.schedules import Schedule

SAMPLERS = ("ddpm", "ddim", "dpm_solver", "heun")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to sample; the default is DDIM in 50 steps.

    Attributes:
      sampler: "ddpm", "ddim", "dpm_solver" (DPM-Solver++(2M)) or "heun" (EDM).
      steps: noise levels. Heun's, which are Karras et al.'s, cost two model calls each.
      guidance: scale of classifier-free guidance; 1: none, 0: without the condition.
      eta: of DDIM: 0 is deterministic, 1 has the posterior's variance.
      variance: of DDPM: "small", "large", "learned"; None: learned where the model learns it, else
        small.
      frames: states between noise and sample that are returned.

    Raises:
      ValueError: a value out of its range.
    """

    sampler: str = "ddim"
    steps: int = 50
    guidance: float = 1.0
    eta: float = 0.0
    variance: str | None = None
    frames: int = 0

    def __post_init__(self):
        def need(ok, name, must):
            if not ok:
                raise ValueError(f"sample.{name} is {getattr(self, name)!r}: it must be {must}.")

        check_finite(vars(self), "sample")
        if self.sampler not in SAMPLERS:
            raise ValueError(
                f"sample.sampler is '{self.sampler}'; use one of {', '.join(SAMPLERS)}."
                + nearest(self.sampler, SAMPLERS)
            )
        need(self.steps >= 1, "steps", "at least 1")
        need(self.guidance >= 0, "guidance", "0 or above (1: none)")
        need(0 <= self.eta <= 1, "eta", "from 0 to 1")
        allowed = (None, *samplers.VARIANCES)
        need(self.variance in allowed, "variance", f"one of {samplers.VARIANCES}")
        need(0 <= self.frames <= self.steps, "frames", f"from 0 to steps, {self.steps}")
        if self.eta and self.sampler != "ddim":
            raise ValueError(f"sample.eta is {self.eta}, which '{self.sampler}' does not have.")
        if self.variance and self.sampler != "ddpm":
            raise ValueError(
                f"sample.variance is '{self.variance}', which '{self.sampler}' does not have."
            )


def levels(settings: Settings, schedule: Schedule) -> Grid:
    """The noise levels that a sampler visits by default.

    Raises:
      ValueError: more steps than the schedule has.
    """
    if settings.sampler == "heun":
        return karras(schedule, settings.steps)
    return even(schedule, settings.steps)


def draw(
    predict: Predict,
    keys: Key[Array, " b"],
    shape: Sequence[int],
    schedule: Schedule,
    settings: Settings,
    *,
    target: str = "epsilon",
    learned_variance: bool = False,
    clip: float | None = None,
    grid: Grid | None = None,
    score: Predict | None = None,
    start: Float[Array, "b ..."] | None = None,
) -> tuple[Float[Array, "b ..."], Float[Array, "f b ..."]]:
    """Samples [B, *shape], and the states between as the settings ask for.

    Args:
      predict: with its conditions, and guidance if any, see `guidance.guided`.
      keys: one per row, on which alone the row's noise depends.
      target, clip, score: see `samplers.Process`.
      learned_variance: the model's output has twice the channels of a sample.
      grid: noise levels other than the default ones.
      start: the noisiest state; None: random.

    Raises:
      ValueError: more steps than the schedule has.
    """
    grid = levels(settings, schedule) if grid is None else grid
    process = samplers.Process(grid, target, clip, settings.frames, score)
    x = normal(numbered(keys, 0), shape) if start is None else start

    def noise(step):
        return normal(numbered(keys, step + 1), shape)

    if settings.sampler == "ddpm":
        variance = settings.variance or ("learned" if learned_variance else "small")
        return samplers.ddpm(predict, x, noise, process, variance)
    if settings.sampler == "ddim":
        return samplers.ddim(predict, x, noise, process, settings.eta)
    solver = samplers.dpm_solver if settings.sampler == "dpm_solver" else samplers.heun
    return solver(predict, x, process)
