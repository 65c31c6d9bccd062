"""The runs of the study of images from text, and how long each may take."""

import signal
import subprocess
import sys
from pathlib import Path

# CPU seconds of a step, measured on two cores with other work; they make budgets equal.
SECONDS = {
    "glide": 2.8,
    "vq": 0.2,
    "dalle": 0.36,
    "clip": 0.7,
    "prior": 0.65,
    "decoder": 2.9,
}
# Of each system the runs in order, and their parts of its budget.
SYSTEMS = {
    "glide": {"glide": 1.0},
    "dalle": {"vq": 0.25, "dalle": 0.75},
    "unclip": {"clip": 0.2, "prior": 0.2, "decoder": 0.6},
}
CONFIGS = {
    "glide": "configs/glide_emoji.py",
    "vq": "configs/dvae_emoji.py",
    "dalle": "configs/dalle_emoji.py",
    "clip": "configs/clip_emoji.py",
    "prior": "configs/prior_emoji.py",
    "decoder": "configs/unclip_emoji.py",
}
JUDGE, JUDGE_STEPS = "judge", 600  # the CLIP that measures, which no system has seen
# Nothing is evaluated during training: the comparison does it once, for all in the same way.
PLAIN = ("--config.evals={}", "--config.validation=()", "--config.baselines=")
PLAIN += ("--config.optim.warmup_steps=0.05",)


def steps_of(stage: str, minutes: float) -> int:
    """Steps of a run when its system has so many minutes of CPU."""
    part = next(stages[stage] for stages in SYSTEMS.values() if stage in stages)
    return max(20, round(60 * minutes * part / SECONDS[stage]))


def changes(stage: str, folder: Path) -> list[str]:
    """What a run changes in its config, besides its length."""
    clip = [f"--config.{key}.path={folder / 'clip'}" for key in ("init_from", "tokenizer")]
    return {
        "vq": [
            "--config.model.kind=vq",
            "--config.loss={}",
            "--config.loss_weights={'reconstruction': 1.0, 'commitment': 0.25}",
        ],
        "dalle": [f"--config.init_from.path={folder / 'vq'}"],
        "prior": clip,
        "decoder": [*clip, "--config.model.image_size=32"],
    }.get(stage, [])


def train(stage: str, folder: Path, seed: int, minutes: float) -> None:
    """Train a run in a process of its own, if it is not done; an unfinished one is resumed.

    Raises:
      ValueError: it failed.
    """
    judge = stage == JUDGE
    config = CONFIGS["clip" if judge else stage]
    steps = JUDGE_STEPS if judge else steps_of(stage, minutes)
    workdir = folder / stage
    saved = [int(x.name) for x in (workdir / "checkpoints").glob("*") if x.name.isdecimal()]
    if max(saved, default=0) >= steps:
        return
    workdir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mmjax.train", f"--config={config}", f"--workdir={workdir}"]
    command += [f"--config.seed={seed}", f"--config.total_steps={steps}", *PLAIN]
    command += [f"--config.checkpoint.every={max(20, steps // 5)}", *changes(stage, folder)]
    command += [f"--config.ema.decay={1 - 10 / steps:.4f}"]  # over about a tenth of the run
    print(f"{workdir}: {steps} steps, see {workdir / 'log.txt'}", flush=True)
    with open(workdir / "log.txt", "ab") as log:
        run = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            run.wait()
        finally:  # if this process was told to end, the run ends too, and saves
            run.terminate()
            run.wait()
            signal.signal(signal.SIGTERM, before)
    if run.returncode:
        raise ValueError(f"The run in {workdir} failed: its log is {workdir / 'log.txt'}.")
