r"""Closed-form maps of names to classes on names that were left out: what a trained map can reach.

    python experiments/photos/kernels.py --names=data/photo_kinds

Ten folds of 100 of the 1,000 classes, and the metrics of held_out.py. A class is the mean of its
texts in the kernel's space: `name` is "a photo of a NAME", `definition` is "NAME: DEFINITION" of
its last name. With `kinds` the hypernyms of the classes are fitted too. No image is used.

Kernels of texts of unit length with cosine c: `linear`; `relu`, the arc-cosine kernel of a wide
layer of ReLU with random weights (Cho & Saul 2009, equation 6); `gaussian g`, exp(-g |x - y|^2).
"""

import argparse
import functools

import numpy as np
from evaluate import ridge, unit
from held_out import Names

PENALTY, FOLDS = 0.03, 10


def relu(c):
    """Between unit vectors with cosine c."""
    c = np.clip(c, -1, 1)
    return (np.sqrt(1 - c * c) + c * (np.pi - np.arccos(c))) / np.pi


def gaussian(g):
    """The same, of a Gaussian."""
    return lambda c: np.exp(2 * g * (c - 1))


KERNELS = {"linear": lambda c: c, "relu": relu} | {f"gaussian {g}": gaussian(g) for g in (1, 2, 4)}


def kernel_ridge(kernel, texts, vectors):
    """A map from features [N, E] to [N, D], fitted on the texts [C, K, E] of C vectors [C, D]."""

    def with_classes(x):
        return kernel(np.tensordot(x, texts, axes=(2, 2))).mean(axis=(1, 3))

    gram = with_classes(texts)
    center, mean = gram.mean(axis=0), vectors.mean(axis=0)
    gram = gram - center - center[:, None] + center.mean()
    weights = np.linalg.solve(gram + PENALTY * np.eye(len(gram)), vectors - mean)

    def embed(features):
        rows = with_classes(unit(features)[:, None])
        rows = rows - rows.mean(axis=1, keepdims=True) - center + center.mean()
        return unit(rows @ weights + mean)

    return embed


def makers(names):
    """{name: classes that are kept, those left out -> map}"""
    texts = {
        "name": unit(names.features)[:, None],
        "name and definition": unit(np.stack([names.features, names.definitions], axis=1)),
    }

    def make(kernel, given, with_kinds, kept, left):
        vectors = {int(i): names.vectors[i] for i in kept}
        if with_kinds:
            vectors |= names.without(left)
        return kernel_ridge(kernel, given[list(vectors)], np.stack(list(vectors.values())))

    yield (
        "ridge of evaluate.py",
        lambda kept, left: ridge(names.features[kept], names.vectors[kept]),
    )
    for with_kinds in (False, True)[: 1 + bool(names.kinds)]:
        for of, given in texts.items():
            for name, kernel in KERNELS.items():
                title = f"{name}, {of}" + ", kinds" * with_kinds
                yield title, functools.partial(make, kernel, given, with_kinds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", required=True)
    names = Names.read(parser.parse_args().names)
    for title, make in makers(names):
        found = []
        for fold in range(FOLDS):
            left, kept = names.fold(fold)
            found.append(names.measure(make(kept, left), left))
        line = [f"{title:40s}"]
        for metric in found[0]:
            values = [row[metric] for row in found]
            error = np.std(values, ddof=1) / len(values) ** 0.5
            line.append(f"{metric} {np.mean(values):.3f} ± {error:.3f}")
        print("   ".join(line), flush=True)


if __name__ == "__main__":
    main()
