r"""How well names that were left out of training find their class: what settings are chosen by.

    python experiments/photos/held_out.py --names=data/photo_kinds --out=DIR --folds 0 1 2 \
        --config.total_steps=800 ...

In each fold 100 of the 1,000 classes are left out, and the config is trained on the others; a
ridge too. `own`: how often the name of a class that was left out finds its class among the 100.
`recall@5`: the same among all 1,000, and the first five. No image is used.

With the names of kinds among the records (`mmjax.photos.features --kinds`) the map is trained on
them too, unless --classes_alone is given, with the mean of those of their classes that are not left
out; and `kind` is how often the vector of a class that was left out finds its kind, "a photo of a
bird", among 48 that have no class in common.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from evaluate import ridge, trained, unit

from mmjax import config as configs
from mmjax import train
from mmjax.data.builders.imagenet_classes import imagenet_classes
from mmjax.data.builders.wordnet_kinds import Kind, apart, kinds
from mmjax.data.sources.array_records import open_records
from mmjax.data.sources.memory import InMemory
from mmjax.data.sources.subset import Subset
from mmjax.photos.features import write

LEFT_OUT, MOST = 100, 60  # classes of a fold, and of a kind that is chosen


class Names(NamedTuple):
    """The records by place: classes, then kinds; of each text the features [N, E]."""

    vectors: np.ndarray  # [1000, D], of unit length
    features: np.ndarray  # of "a photo of a NAME"
    definitions: np.ndarray  # of "NAME: DEFINITION" of the last name
    kinds: list[Kind]

    @classmethod
    def read(cls, root: str) -> "Names":
        """Those of a data set of `mmjax.photos.features --target`."""
        records, classes = open_records(root), imagenet_classes()
        rows = [records[i] for i in range(len(records))]
        # A record may have several vectors, of copies of its image; a class has one.
        vectors = [row["image_features"][0] for row in rows[: len(classes)]]
        features = [np.stack([row["text_features"][i] for row in rows]) for i in (1, -1)]
        given = kinds(classes) if len(rows) > len(classes) else []
        return cls(unit(np.stack(vectors)), *features, given)

    def fold(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The classes that are left out, and the others."""
        order = np.random.default_rng(0).permutation(len(self.vectors))
        left = order[number * LEFT_OUT :][:LEFT_OUT]
        return left, np.setdiff1d(order, left)

    def without(self, left: np.ndarray) -> Mapping[int, np.ndarray]:
        """Place -> unit vector of the kinds of at least two classes that are not left out."""
        found = {}
        for place, kind in enumerate(self.kinds, len(self.vectors)):
            rest = np.setdiff1d(kind.members, left)
            if len(rest) > 1:
                found[place] = unit(self.vectors[rest].mean(axis=0))
        return found

    def measure(self, embed, left: np.ndarray) -> dict[str, float]:
        """{metric: value}"""
        scores = embed(self.features[left]) @ self.vectors.T
        own = scores[np.arange(len(left)), left][:, None]
        among = ((scores[:, left] >= own).sum(axis=1) == 1).mean()
        found = {"own": among, "recall@5": ((scores >= own).sum(axis=1) <= 5).mean()}
        if self.kinds:
            chosen = apart(self.kinds, MOST)
            place = {kind.synset: i for i, kind in enumerate(self.kinds, len(self.vectors))}
            queries = embed(self.features[[place[kind.synset] for kind in chosen]])
            of = {i: number for number, kind in enumerate(chosen) for i in kind.members}
            mine = [i for i in left if i in of]
            best = (self.vectors[mine] @ queries.T).argmax(axis=1)
            found["kind"] = (best == [of[i] for i in mine]).mean()
        return found


def write_part(target, records, indices, vectors):
    """Some of the records, as a data set of their own, with other vectors by index."""
    rows = {(r := records[i])["key"]: {**r, "image_features": vectors[i]} for i in indices}
    rest = InMemory(Subset(records, indices), lambda row, rng: rows[row["key"]])
    known = {x: y for row in rows.values() for x, y in zip(row["captions"], row["text_features"])}
    write(target, lambda: rest, lambda texts: np.stack([known[x] for x in texts]), {}, 2000)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--folds", nargs="+", type=int, default=[0])
    parser.add_argument("--classes_alone", action="store_true")
    args, overrides = parser.parse_known_args()
    names = Names.read(args.names)
    found = {"ridge": [], "trained": []}
    for fold in args.folds:
        left, kept = names.fold(fold)
        vectors = {int(i): names.vectors[i] for i in kept}
        if not args.classes_alone:
            vectors |= names.without(left)
        target, workdir = args.out / f"names{fold}", args.out / f"run{fold}"
        write_part(target, open_records(args.names), list(vectors), vectors)
        given = [f"data.train.root={target}"]
        given += [x.removeprefix("--config.") for x in overrides]
        train.train(configs.load("configs/lit_photos.py", given), workdir)
        maps = {"ridge": ridge(names.features[kept], names.vectors[kept])}
        maps["trained"] = trained(workdir)
        for name, embed in maps.items():
            found[name].append(names.measure(embed, left))
    for name, several in found.items():
        means = {k: statistics.mean(float(row[k]) for row in several) for k in several[0]}
        print(name, "  ".join(f"{k} {v:.3f}" for k, v in means.items()), file=sys.stderr)


if __name__ == "__main__":
    main()
