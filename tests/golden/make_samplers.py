"""Make tests/golden/samplers.safetensors: whole trajectories of the schedulers of diffusers.

    pip install torch==2.13.0 diffusers==0.42.0
    python tests/golden/make_samplers.py

Of each case in `CASES` the times, and x [N, B, C] after every step, from the same `start` and, in
ancestral sampling, the same `noise` of each step. The model is `toy`, elementwise. Of Heun's method
also the sigmas, which diffusers computes from a product of 1,000 float32 numbers.
"""

from pathlib import Path

import diffusers
import torch
from diffusers.schedulers import scheduling_ddpm, scheduling_unclip
from safetensors.torch import save_file

SHAPE, MOST = (3, 4), 20

# name: (scheduler, its settings, steps, settings of each step)
DDPM = {"timestep_spacing": "linspace"}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
CASES = {
    "ddpm_small": ("DDPMScheduler", DDPM | {"variance_type": "fixed_small"}, 12, {}),
    "ddpm_large": (
        "DDPMScheduler",
        DDPM
        | COSINE
        | {"variance_type": "fixed_large", "prediction_type": "v_prediction", "clip_sample": False},
        12,
        {},
    ),
    "ddpm_learned": ("DDPMScheduler", DDPM | {"variance_type": "learned_range"}, 12, {}),
    "ddpm_all": ("DDPMScheduler", {"num_train_timesteps": 20, "clip_sample": False}, 20, {}),
    "unclip_learned": ("UnCLIPScheduler", {"variance_type": "learned_range"}, 12, {}),
    "unclip_x0": (
        "UnCLIPScheduler",
        {"prediction_type": "sample", "clip_sample_range": 0.7},
        12,
        {},
    ),
    "ddim": (
        "DDIMScheduler",
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        12,
        {"use_clipped_model_output": True},
    ),
    "ddim_eta": (
        "DDIMScheduler",
        {"prediction_type": "v_prediction", "clip_sample": False, **COSINE},
        12,
        {"eta": 1.0},
    ),
    "dpm_solver": ("DPMSolverMultistepScheduler", {}, 12, {}),
    "dpm_solver_v": (
        "DPMSolverMultistepScheduler",
        COSINE | {"prediction_type": "v_prediction"},
        20,
        {},
    ),
    "euler": ("EulerDiscreteScheduler", {"timestep_spacing": "leading"}, 12, {}),
    "heun": (
        "HeunDiscreteScheduler",
        {"beta_start": 0.0001, "beta_end": 0.02, "use_karras_sigmas": True},
        12,
        {},
    ),
}
LINEAR = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}


def toy(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """A prediction for x [B, C] and, from 2C on, one for the variance."""
    mean = 0.8 * torch.tanh(x + 0.3 * torch.sin(time / 150))
    return torch.cat([mean, torch.sin(3 * x + time / 300)], dim=1)


def trajectory(name: str, start: torch.Tensor, noise: torch.Tensor):
    """The times, and the x after every step of a case; of Heun's method also its sigmas."""
    kind, settings, steps, options = CASES[name]
    settings = settings if "beta_schedule" in settings or "unclip" in name else LINEAR | settings
    scheduler = getattr(diffusers, kind)(**settings)
    scheduler.set_timesteps(steps)
    drawn, heun = iter(noise), kind == "HeunDiscreteScheduler"
    for module in (scheduling_ddpm, scheduling_unclip):
        module.randn_tensor = lambda *given, **named: next(drawn)
    x, times, states = start * scheduler.init_noise_sigma, [], []
    for i, time in enumerate(scheduler.timesteps):
        step = dict(options)
        if kind == "UnCLIPScheduler":
            later = scheduler.timesteps[i + 1 :]
            step["prev_timestep"] = int(later[0]) if len(later) else None
        elif step.get("eta"):
            step["variance_noise"] = noise[i]
        output = toy(scheduler.scale_model_input(x, time), time.float())
        if "learned" not in name:
            output = output[:, : x.shape[1]]
        x = scheduler.step(output, time, x, **step).prev_sample
        if not heun or scheduler.state_in_first_order or time == scheduler.timesteps[-1]:
            states.append(x)
            times.append(time)
    if heun:  # which ends a step at the time of the next one
        times = [scheduler.timesteps[0], *scheduler.timesteps[1::2]]
    sigmas = torch.tensor([scheduler.sigmas[0], *scheduler.sigmas[1::2]]) if heun else None
    return torch.stack(times).float(), torch.stack(states), sigmas


def main() -> None:
    torch.manual_seed(0)
    kept = {"start": torch.randn(SHAPE), "noise": torch.randn(MOST, *SHAPE)}
    for name in CASES:
        times, states, sigmas = trajectory(name, kept["start"], kept["noise"])
        kept |= {f"{name}/times": times, f"{name}/x": states}
        if name == "heun":
            kept["heun/sigma"] = sigmas
        print(f"{name}: {len(times)} steps, {states.abs().max():.2f}")
    save_file(kept, Path(__file__).parent / "samplers.safetensors")


if __name__ == "__main__":
    main()
