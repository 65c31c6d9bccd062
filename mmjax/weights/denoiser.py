"""What denoising models of diffusers have in common: their samples, their noise, their classes.

diffusers keeps the noise schedule in a folder of its own, `scheduler`, beside that of the model in
a pipeline, or in it where mmjax saved the model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.models.diffusion import Diffusion
from mmjax.weights import published, schema
from mmjax.weights.published import Published

SCHEDULER = Path("scheduler") / "scheduler_config.json"
# beta_schedule: our name, and the beta_start and beta_end that ours has; None: any, unused.
SCHEDULES = {
    "linear": ("linear", (0.0001, 0.02)),
    "scaled_linear": ("scaled_linear", (0.00085, 0.012)),
    "squaredcos_cap_v2": ("squared_cosine", None),
}
_SCHEDULER = {"beta_schedule": "linear", "prediction_type": "epsilon", "num_train_timesteps": 1000}
TARGETS = {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v"}


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The folder with its noise schedule under `scheduler` in its config, and notes."""
    for folder in (found.folder, found.folder.parent):
        if (folder / SCHEDULER).is_file():
            given = published.read_json(folder / SCHEDULER)
            return found._replace(config={**found.config, "scheduler": given}), []
    note = "no scheduler_config.json: 1,000 linear steps and epsilon are assumed"
    return found, [note]


def fields(
    found: Published, backbone: dict[str, Any], classes: int | None, dropout: float
) -> dict[str, Any]:
    """`config.model` of a denoising model.

    Args:
      backbone: its section; classes: of the table, without the row for none; dropout: with which
        it was trained, 0: it has no such row.

    Raises:
      ValueError: settings that our model does not support.
    """
    where, config = str(found.folder / published.CONFIG), found.config
    size, channels = config.get("sample_size"), config.get("in_channels", 3)
    size = (size, size) if isinstance(size, int) else size
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise ValueError(f"'{where}' has sample_size {size!r}; a number, or two, is needed.")
    if channels in (1, 3):
        sizes = {"image_size": tuple(size), "gray": channels == 1}
    else:
        sizes = {"latents": (*size, channels)}
    outputs = config.get("out_channels") or channels
    if outputs not in (channels, 2 * channels):
        raise ValueError(
            f"'{where}' has {channels} channels in and {outputs} out: a denoising model has as "
            "many, or twice as many with a learned variance."
        )
    return {
        "name": "diffusion",
        "backbone": backbone,
        **sizes,
        "num_classes": classes,
        "condition_dropout": dropout,
        "learned_variance": outputs == 2 * channels,
        **_noise(config.get("scheduler", {}), str(found.folder / SCHEDULER)),
    }


def _noise(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    for name, default in _SCHEDULER.items():
        schema.check(name, given.get(name), schema.Maybe(default), where)
    kind = given.get("beta_schedule", "linear")
    if kind not in SCHEDULES or given.get("trained_betas") is not None:
        raise ValueError(f"'{where}' has beta_schedule '{kind}'; use one of {sorted(SCHEDULES)}.")
    name, ends = SCHEDULES[kind]
    betas = (given.get("beta_start", 0.0001), given.get("beta_end", 0.02))
    if ends and betas != ends:
        raise ValueError(f"'{where}' has betas from {betas}; a '{kind}' of ours has {ends}.")
    steps, target = given.get("num_train_timesteps", 1000), given.get("prediction_type", "epsilon")
    if name == "linear" and steps != 1000:
        raise ValueError(f"'{where}' has {steps} steps of linear betas, which ours has for 1,000.")
    if target not in TARGETS:
        raise ValueError(f"'{where}' has prediction_type '{target}'; one of {sorted(TARGETS)}.")
    return {"target": TARGETS[target], "schedule": {"name": name, "steps": steps}}


def config_of(model: Diffusion) -> dict[str, Any]:
    """The settings of config.json that say what a sample is."""
    *size, channels = model.shape
    return {
        "sample_size": size[0] if size[0] == size[1] else size,
        "in_channels": channels,
        "out_channels": channels * (2 if model.learned_variance else 1),
    }


def scheduler_of(model: Diffusion) -> dict[str, Any]:
    """scheduler_config.json for one of our models.

    Raises:
      ValueError: a noise schedule that diffusers does not have.
    """
    schedule = model.noise_schedule
    theirs = {name: (kind, ends) for kind, (name, ends) in SCHEDULES.items()}
    if schedule.name not in theirs or (schedule.name == "linear" and schedule.steps != 1000):
        raise ValueError(
            f"This model cannot be saved for diffusers, which has no noise schedule "
            f"'{schedule.name}' of {schedule.steps} steps."
        )
    kind, ends = theirs[schedule.name]
    (target,) = [k for k, name in TARGETS.items() if name == model.target]
    low, high = ends or (0.0001, 0.02)
    return {
        "_class_name": "DDPMScheduler",
        "beta_schedule": kind,
        "beta_start": low,
        "beta_end": high,
        "num_train_timesteps": schedule.steps,
        "prediction_type": target,
        "variance_type": "learned_range" if model.learned_variance else "fixed_small",
        "clip_sample": model.latents is None,
        "timestep_spacing": "linspace",
    }
