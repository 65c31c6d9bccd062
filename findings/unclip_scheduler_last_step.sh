#!/usr/bin/env bash
# UnCLIPScheduler's last step does not return the predicted image.
#
# Versions: diffusers 0.42.0, torch 2.13.0, Python 3.11.
#
# At time 0 of a diffusion that predicts the clean sample, the last step has nothing left to do but to
# return the prediction; DDPMScheduler with the same betas does.
#
# Seen: UnCLIPScheduler multiplies it by 0.9995: the coefficient is sqrt(alpha_prev) * beta / (1 -
# alpha_cumprod), where alpha_cumprod of float32 is rounded (beta 4.1e-5 is near its resolution) and beta is
# not. A prediction of 0.5 becomes 0.4997.
#
# What to do: take the last prediction itself, or expect parity with other implementations to 5e-4 only.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    diffusers==0.42.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
from diffusers import DDPMScheduler, UnCLIPScheduler

common = {"num_train_timesteps": 1000, "prediction_type": "sample", "clip_sample": False}
unclip = UnCLIPScheduler(**common, variance_type="fixed_small_log")
ddpm = DDPMScheduler(**common, beta_schedule="squaredcos_cap_v2", variance_type="fixed_small")
found = {}
for scheduler in (unclip, ddpm):
    scheduler.set_timesteps(25)
    last, image = int(scheduler.timesteps[-1]), torch.full((1, 4), 0.5)
    out = scheduler.step(image, last, torch.randn(1, 4))
    found[type(scheduler).__name__] = float(out.prev_sample[0, 0])
print("a prediction of 0.5 at time", last, "becomes", found)
off = abs(found["UnCLIPScheduler"] / 0.5 - 0.9995) < 1e-4
sys.exit(0 if off and abs(found["DDPMScheduler"] - 0.5) < 1e-6 else 1)
PY
