"""Video tokens as VideoBERT has them: hierarchical k-means over the clips of a training set.

    python -m mmjax.cluster_video --config=configs/videobert_wesnoth.py

Reads config.data.train through the steps of config.data.transform before `video_tokens(FOLDER)`,
fits `--levels` levels of `--k` clusters to the features of every valid clip, and writes FOLDER,
which that step reads in training. The same data and seed give the same folder; one that has
clusters already is left as it is, as runs may depend on it.
"""

import inspect
from typing import Any

import numpy as np

from mmjax.process import command

if __name__ == "__main__":
    ARGS = command.start(
        __doc__,
        ("--config", {"required": True, "help": "the experiment's config file"}),
        ("--levels", {"type": int, "default": 4, "help": "levels of the tree"}),
        ("--k", {"type": int, "default": 12, "help": "clusters of each node"}),
        ("--seed", {"type": int, "default": 0, "help": "of the first centers"}),
        ("--iterations", {"type": int, "default": 50, "help": "of each k-means"}),
        ("--batch", {"type": int, "default": None, "help": "vectors of a mini-batch; none: all"}),
    )

from mmjax import config as configs
from mmjax.data import clusters
from mmjax.data.draws import EVAL, row_rng
from mmjax.data.open_source import open_source
from mmjax.data.transforms import chain, parse, video_tokens
from mmjax.process.progress import Progress


def steps_before(spec: str) -> tuple[str, dict[str, Any]]:
    """The steps of a chain before `video_tokens`, in their form without captions, and that step's
    arguments.

    Raises:
      ValueError: there is no such step.
    """
    names = [name for name, *_ in chain.read(spec)]
    if "video_tokens" not in names:
        raise ValueError(
            "config.data.transform has no step video_tokens(FOLDER), which says where the clusters "
            "are read from: add it."
        )
    before = names[: names.index("video_tokens")]
    video = [name for name in before if name.endswith("_frames") or name == "each_frame"]
    _, args, kwargs, _ = chain.read(spec)[len(before)]
    bound = inspect.signature(video_tokens.video_tokens).bind(*args, **kwargs)
    bound.apply_defaults()
    return chain.only(spec, video), bound.arguments


def features_of(config: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """The features [N, D] of all valid clips of the training set, and the settings of the step.

    Raises:
      ValueError: no such step, or its folder has clusters already.
    """
    spec, settings = steps_before(config.data.transform)
    if clusters.is_saved(settings["folder"]):
        raise ValueError(
            f"'{settings['folder']}' has clusters already: name another folder in video_tokens(), "
            "or delete this one."
        )
    source, transform, found = open_source(config.data.train), parse.parse(spec), []
    with Progress("Reading clips", len(source)) as bar:
        for i in range(len(source)):
            example = transform(source[i], row_rng(0, i, EVAL))
            clip, frames = settings["clip"], settings["frames"]
            features, mask = video_tokens.clip_features(example, clip, frames)
            found.append(features[mask])
            bar.advance()
    return np.concatenate(found), settings


def main() -> None:
    """The command."""
    config = configs.load(ARGS.config, ARGS.overrides)
    x, settings = features_of(config)
    about = {"clip": settings["clip"], "transform": config.data.transform}
    given = {"seed": ARGS.seed, "iterations": ARGS.iterations, "batch": ARGS.batch}
    tree = clusters.fit(x, ARGS.levels, ARGS.k, **given, features=about)
    clusters.save(tree, settings["folder"])
    used = int((tree.counts > 0).sum())
    print(f"{len(x):,} clips of {x.shape[1]:,} numbers: {used:,} of {tree.size:,} clusters used")
    print(f"written: {settings['folder']}")


if __name__ == "__main__":
    command.run(main)
