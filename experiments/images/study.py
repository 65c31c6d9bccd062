r"""Images from text in three ways, on the same drawings and with the same budget: one table.

    python -m experiments.images.study --out=runs/images --seeds=0,1,2 --minutes=60

A GLIDE, a DALL-E (with its VQ-VAE) and an unCLIP (with its CLIP, prior and decoder) are each
trained from scratch on the emoji set at 32 px, with --minutes of CPU for a system, all of its runs
together. Then one image is sampled for each name of the unseen concepts, at several strengths of
guidance (of DALL-E, which has none: at several temperatures), and for as many names of the training
set at the first of these. Beside them, measured in the same way:

- retrieval: the training drawing that the unCLIP's CLIP finds for the name (for a name of the
  training set that may be the drawing itself);
- real: the drawings of these names themselves; random: as many training drawings.

The CLIP cosine, and how often a sample's name is among the five that fit it best, are of another
CLIP, trained once with a seed of its own, from which no system has learned. FID and KID name their
extractor; FID depends on the number of images, so it is comparable only within a split. Nothing is
chosen by a result: the guidance of the comparison is fixed beforehand. Kill it at any time and
start it again.
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("--out", {"required": True, "help": "folder of the runs and the table"}),
        ("--seeds", {"default": "0,1,2", "help": "of training and sampling [0,1,2]"}),
        ("--minutes", {"type": float, "default": 60.0, "help": "CPU minutes of a system [60]"}),
        ("--count", {"type": int, "default": 256, "help": "images of a split at most [256]"}),
    )

import functools
import json
from pathlib import Path

import numpy as np

from experiments.images import stages
from experiments.images.samples import Sampler
from experiments.images.scores import Judge, drawings, table
from mmjax import storage

JUDGE_SEED = 1000
# What is fixed beforehand for the comparison, and what else makes the curve.
SETTINGS = (
    ("glide", "guidance", (3.0, 1.0, 2.0, 5.0)),
    ("dalle", "temperature", (1.0, 0.8, 0.6)),
    ("unclip", "guidance", (3.0, 1.0, 2.0, 5.0)),
)
SPLITS = {"unseen": "unseen_test", "seen": "train"}


def of_seed(out: Path, seed: int, minutes: float, count: int, judge: Judge) -> None:
    """Train the systems of a seed, and score their samples and the baselines."""
    folder = out / f"seed={seed}"
    for runs in stages.SYSTEMS.values():
        for stage in runs:
            stages.train(stage, folder, seed, minutes)
    sampler = Sampler(folder, seed)
    train, _ = drawings("train", None)
    for split, part in SPLITS.items():
        real, texts = drawings(part, count)
        ways = {
            "retrieval": functools.partial(sampler.retrieved, train, texts),
            "real": functools.partial(np.asarray, real),
            "random": functools.partial(sampler.random, train, len(texts)),
        }
        for system, name, values in SETTINGS:
            for value in values if split == "unseen" else values[:1]:
                title = f"{system}, {name} {value:g}"
                ways[title] = functools.partial(sampler, system, {name: value}, texts)
        for title, images in ways.items():
            judge.score(folder / "scores" / f"{split}, {title}.json", images, real, texts)


def main() -> None:
    """The command."""
    out, seeds = Path(ARGS.out), ARGS.seeds.split(",")
    if not all(seed.isdecimal() for seed in seeds):
        raise ValueError(f"--seeds is '{ARGS.seeds}': give whole numbers, such as 0,1,2.")
    if ARGS.minutes <= 0 or ARGS.count < 4:
        raise ValueError("Give --minutes above 0 and a --count of at least 4.")
    settings = {"minutes": ARGS.minutes, "count": ARGS.count}
    known = out / "settings.json"
    if known.exists() and json.loads(known.read_text()) != settings:
        raise ValueError(
            f"{out} holds a study with other settings, see {known}: give another --out."
        )
    storage.write(known, json.dumps(settings))
    stages.train(stages.JUDGE, out, JUDGE_SEED, ARGS.minutes)
    judge = Judge(out / stages.JUDGE)
    for seed in map(int, seeds):
        of_seed(out, seed, ARGS.minutes, ARGS.count, judge)
        storage.write(out / "table.md", table(out) + "\n")
    print((out / "table.md").read_text())


if __name__ == "__main__":
    command.run(main)
