r"""How well names that were left out of training find their class: what settings are chosen by.

    python experiments/photos/held_out.py --names=data/photo_names --out=DIR --folds 0 1 2 \
        --config.total_steps=800 ...

In each fold 100 of the 1,000 classes are left out, and the config is trained on the others; a
ridge too. `own`: how often the name of a class that was left out finds its class among the 100.
`recall@5`: the same among all 1,000, and the first five. No image is used.
"""

import argparse
import statistics
import sys
from pathlib import Path

import numpy as np
from evaluate import ridge, trained, unit

from mmjax import config as configs
from mmjax import train
from mmjax.data.sources.array_records import open_records
from mmjax.data.sources.memory import InMemory
from mmjax.data.sources.subset import Subset
from mmjax.photos.features import write

LEFT_OUT = 100


def measure(embed, features, vectors, left):
    """{metric: value}; `features` are those of "a photo of a NAME" of each class."""
    queries = embed(features[left])
    scores = queries @ vectors.T
    own = scores[np.arange(len(left)), left][:, None]
    among = ((scores[:, left] >= own).sum(axis=1) == 1).mean()
    return {"own": among, "recall@5": ((scores >= own).sum(axis=1) <= 5).mean()}


def write_part(target, records, indices):
    """Some of the records, as a data set of their own."""
    rest = Subset(records, indices)
    rows = (rest[i] for i in range(len(rest)))
    known = {x: y for row in rows for x, y in zip(row["captions"], row["text_features"])}
    write(target, lambda: rest, lambda texts: np.stack([known[x] for x in texts]), {}, 1000)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--folds", nargs="+", type=int, default=[0])
    args, overrides = parser.parse_known_args()
    # A record may have several vectors, of copies of its image; a class has one.
    alone = lambda row, rng: {**row, "image_features": row["image_features"][0]}  # noqa: E731
    records = InMemory(open_records(args.names), alone)
    rows = [records[i] for i in range(len(records))]
    vectors = unit(np.stack([row["image_features"] for row in rows]))
    features = np.stack([row["text_features"][1] for row in rows])  # "a photo of a NAME"
    order = np.random.default_rng(0).permutation(len(rows))
    found = {"ridge": [], "trained": []}
    for fold in args.folds:
        left = order[fold * LEFT_OUT :][:LEFT_OUT]
        kept = np.setdiff1d(order, left)
        target, workdir = args.out / f"names{fold}", args.out / f"run{fold}"
        write_part(target, records, kept.tolist())
        given = [f"data.train.root={target}"]
        given += [x.removeprefix("--config.") for x in overrides]
        train.train(configs.load("configs/lit_photos.py", given), workdir)
        maps = {"ridge": ridge(features[kept], vectors[kept]), "trained": trained(workdir)}
        for name, embed in maps.items():
            found[name].append(measure(embed, features, vectors, left))
    for name, several in found.items():
        means = {k: statistics.mean(float(row[k]) for row in several) for k in several[0]}
        print(name, "  ".join(f"{k} {v:.3f}" for k, v in means.items()), file=sys.stderr)


if __name__ == "__main__":
    main()
