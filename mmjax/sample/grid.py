"""The noise levels that a sampler visits."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmjax.sample.schedules import Schedule, split

RHO = 7.0  # Karras et al. 2022 (arXiv 2206.00364), table 1


class Grid(NamedTuple):
    """N + 1 noise levels from the noisiest to the clean sample, float64 on the host.

    Attributes:
      times: [N], what the model sees at each level but the last.
      alpha, sigma: [N + 1], of x = alpha x0 + sigma noise; the last are 1 and 0.
    """

    times: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray


def at_times(schedule: Schedule, times: Sequence[float] | np.ndarray) -> Grid:
    """The levels of a schedule at decreasing times, then the clean sample.

    Ancestral sampling over them respaces the process as Nichol and Dhariwal 2021 (arXiv
    2102.09672), section 4: the betas follow from the levels.

    Raises:
      ValueError: times that do not decrease, or outside the schedule.
    """
    times = np.asarray(times, np.float64)
    last = schedule.steps - 1 if schedule.is_discrete else schedule.steps
    if not len(times) or (np.diff(times) >= 0).any() or times[0] > last or times[-1] < 0:
        raise ValueError(
            f"The times of sampling are {times.tolist()}: they must decrease and be within 0 and "
            f"{last}, those of the noise schedule."
        )
    return _closed(times, *split(schedule.log_snr(times)))


def even(schedule: Schedule, steps: int) -> Grid:
    """`steps` evenly spaced levels of a schedule, both ends included where it is discrete.

    Raises:
      ValueError: no steps, or more than a discrete schedule has.
    """
    check_steps(schedule, steps)
    if not schedule.is_discrete:
        return at_times(schedule, np.linspace(schedule.steps, 0, steps + 1)[:-1])
    first = schedule.steps - 1
    return at_times(schedule, np.linspace(0, first, steps).round()[::-1] if steps > 1 else [first])


def karras(schedule: Schedule, steps: int) -> Grid:
    """Levels that are even in (sigma / alpha)^(1/7): more of them where there is little noise.

    Source: Karras et al. 2022 (arXiv 2206.00364), eq. 5.

    Raises:
      ValueError: as `even`.
    """
    check_steps(schedule, steps)
    ends = [0, schedule.steps - 1] if schedule.is_discrete else [0, schedule.steps]
    noise = np.exp(-0.5 * schedule.log_snr(np.asarray(ends)))
    low, high = noise ** (1 / RHO)
    log_snr = -2 * np.log((high + np.linspace(0, 1, steps) * (low - high)) ** RHO)
    fine = np.arange(schedule.steps) if schedule.is_discrete else np.linspace(*ends, 10001)
    times = np.interp(-log_snr, -schedule.log_snr(fine), fine)
    return _closed(times, *split(log_snr))


def check_steps(schedule: Schedule, steps: int) -> None:
    """Raise ValueError for a number of steps that a sampler cannot take."""
    if steps < 1 or (schedule.is_discrete and steps > schedule.steps):
        raise ValueError(
            f"Sampling in {steps} steps: the noise schedule '{schedule.name}' has "
            f"{schedule.steps}; take from 1 to {schedule.steps}."
        )


def _closed(times: np.ndarray, alpha: np.ndarray, sigma: np.ndarray) -> Grid:
    return Grid(times, np.append(alpha, 1.0), np.append(sigma, 0.0))
