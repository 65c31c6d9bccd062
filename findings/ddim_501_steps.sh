#!/usr/bin/env bash
# DDIM of diffusers with 501 of 1,000 steps is worse than with 500: it skips the noise, or leaves it in.
#
# Versions: diffusers 0.42.0, torch 2.13.0, numpy 2.4.6, Python 3.11.
#
# More steps are expected to give a better sample. set_timesteps takes any number up to that of training.
#
# Data are normal with mean 1 and deviation 0.5, and the best prediction of the noise is known in closed form, so that
# the mean and the deviation of the samples are exact, without a network.
#
# Seen: with 500 steps they are 0.997 and 0.497 (0.996 for "linspace"). With 501, "leading", the default, has the
# timesteps 500, 499, ... 0: pure noise is handed in as a half-noised sample, and the mean is 0.857. "trailing" and
# "linspace" begin at 999, but each step goes back by 1000 // 501 = 1 while the next one begins two lower, so that noise
# stays: mean 0.612, deviation 0.706. 600 steps do the same to a lesser degree; 999 hardly. No warning.
#
# What to do: a number of steps that divides the number of training steps.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check diffusers==0.42.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
from diffusers import DDIMScheduler

MEAN, DEVIATION = 1.0, 0.5


def samples(spacing, steps):
    """First timestep, and mean and deviation of the samples: DDIM is an affine map of the first noise here."""
    scheduler = DDIMScheduler(timestep_spacing=spacing, clip_sample=False)
    scheduler.set_timesteps(steps)
    x = torch.tensor([0.0, 1.0], dtype=torch.float64)
    for t in scheduler.timesteps.tolist():
        signal = scheduler.alphas_cumprod[t].double()
        variance = signal * DEVIATION**2 + 1 - signal
        noise = (1 - signal).sqrt() * (x - signal.sqrt() * MEAN) / variance
        x = scheduler.step(noise, t, x).prev_sample
    return int(scheduler.timesteps[0]), round(float(x[0]), 3), round(float(x[1] - x[0]), 3)


found = {}
for spacing in ("leading", "trailing", "linspace"):
    for steps in (250, 500, 501, 600, 999, 1000):
        first, mean, deviation = found[spacing, steps] = samples(spacing, steps)
        print(f"{spacing}, {steps} steps from {first}: mean {mean}, deviation {deviation}")
right = all(abs(found[key][1] - 1) < 0.02 and abs(found[key][2] - 0.5) < 0.02 for key in found if key[1] not in (501, 600))
skips = found["leading", 501][0] == 500 and abs(found["leading", 501][1] - 0.857) < 0.01
noisy = all(abs(found[spacing, 501][2] - 0.706) < 0.01 for spacing in ("trailing", "linspace"))
sys.exit(0 if right and skips and noisy else 1)
PY
