"""Hierarchical k-means: features to the ids of a tree of clusters, saved as a versioned folder.

A folder holds `clusters.json` (format, levels, k, what the features are, counts) and
`clusters.safetensors` (the centers of each level). The same features and seed give the same tree.

Source: Sun et al. 2019 (arXiv 1904.01766, VideoBERT), section 4.2: 4 levels of 12 clusters;
k-means++: Arthur and Vassilvitskii 2007; mini-batches: Sculley 2010.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mmjax import storage
from mmjax.data import text_file

FORMAT = 1
_CHUNK = 1 << 14  # vectors whose distances are held at once
_DAMAGED = (OSError, KeyError, TypeError, AttributeError, ValueError, OverflowError)


class FormatError(ValueError):
    """Clusters of another version."""


@dataclasses.dataclass(frozen=True)
class Clusters:
    """A tree of clusters.

    Attributes:
      centers: of each level l, [k ** l, k, D] float32: the children of each node; a node has fewer
        than k children where fewer distinct vectors were in it, and unused ones are infinite.
      counts: [k ** levels] int64, the vectors of each leaf in the fit.
      features: what the vectors are, such as {"kind": "pixels", "size": 12}.
    """

    centers: tuple[np.ndarray, ...]
    counts: np.ndarray
    features: Mapping[str, Any]

    @property
    def k(self) -> int:
        """Children of a node."""
        return self.centers[0].shape[1]

    @property
    def size(self) -> int:
        """Number of leaves, used or not: ids are below it."""
        return self.k ** len(self.centers)

    def ids(self, x: np.ndarray) -> np.ndarray:
        """[...] int32: the leaf of each vector [..., D], from level to level the nearest center.

        Raises:
          ValueError: vectors of another size.
        """
        width = self.centers[0].shape[-1]
        if x.shape[-1] != width:
            raise ValueError(f"the features have {x.shape[-1]} numbers and the clusters {width}")
        flat = x.reshape(-1, width).astype(np.float32)
        found = np.zeros(len(flat), np.int64)
        for level in self.centers:
            nodes, found = found, np.empty_like(found)
            for node in np.unique(nodes):
                mine = np.flatnonzero(nodes == node)
                found[mine] = node * self.k + assign(flat[mine], level[node])[0]
        return found.reshape(x.shape[:-1]).astype(np.int32)


def fit(
    x: np.ndarray,
    levels: int,
    k: int,
    *,
    seed: int = 0,
    iterations: int = 50,
    batch: int | None = None,
    features: Mapping[str, Any] | None = None,
) -> Clusters:
    """The tree of vectors [N, D] (an array or a memory map).

    Args:
      iterations: at most so many of Lloyd's, fewer where no vector moves; with `batch`, exactly so
        many mini-batches of that size per node.

    Raises:
      ValueError: no vectors, some that are not finite, or no levels or clusters.
    """
    if x.ndim != 2 or not len(x):
        raise ValueError(f"clusters need vectors [N, D], not an array {list(x.shape)}")
    bad = np.flatnonzero(~np.isfinite(x).all(1))
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {len(x)} vectors, the first of them number {bad[0]}, are not finite: "
            "leave these clips out"
        )
    if levels < 1 or k < 2:
        raise ValueError(f"clusters of {levels} levels of {k}: give at least 1 level of 2")
    found, centers = np.zeros(len(x), np.int64), []
    for level in range(levels):
        made = np.full((k**level, k, x.shape[1]), np.inf, np.float32)
        nodes, found = found, np.empty_like(found)
        for node in np.unique(nodes):
            mine = np.flatnonzero(nodes == node)
            rng = np.random.default_rng([seed, level, int(node)])
            made[node] = kmeans(x[mine], k, rng, iterations, batch)
            found[mine] = node * k + assign(x[mine], made[node])[0]
        centers.append(made)
    counts = np.bincount(found, minlength=k**levels)
    return Clusters(tuple(centers), counts, dict(features or {"kind": "given"}))


def kmeans(
    x: np.ndarray, k: int, rng: np.random.Generator, iterations: int, batch: int | None = None
) -> np.ndarray:
    """Centers [k, D] float32 of vectors [N, D], infinite where there are fewer distinct vectors."""
    x = np.asarray(x, np.float32)
    centers = first_centers(x, k, rng)
    used = np.isfinite(centers[:, 0])
    if batch is None:
        centers[used] = lloyd(x, centers[used], iterations)
    else:
        centers[used] = mini_batches(x, centers[used], rng, iterations, batch)
    return centers


def first_centers(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """[k, D] vectors of x [N, D]: the first at random, each further one with a probability
    proportional to its squared distance from those before (k-means++)."""
    centers = np.full((k, x.shape[1]), np.inf, np.float32)
    centers[0] = x[rng.integers(len(x))]
    distance = np.square(x - centers[0]).sum(1, dtype=np.float64)
    for i in range(1, k):
        if not distance.sum() > 0:
            break
        edges = np.cumsum(distance)
        at = np.searchsorted(edges, rng.random() * edges[-1], side="right")
        centers[i] = x[min(at, len(x) - 1)]
        distance = np.minimum(distance, np.square(x - centers[i]).sum(1, dtype=np.float64))
    return centers


def lloyd(x: np.ndarray, centers: np.ndarray, iterations: int) -> np.ndarray:
    """The centers [k, D] after at most `iterations` of assigning and averaging.

    A center without vectors moves to the vector that is furthest from its own center.
    """
    before = None
    for _ in range(iterations):
        nearest, distance = assign(x, centers)
        if before is not None and np.array_equal(nearest, before):
            break
        counts = np.bincount(nearest, minlength=len(centers))
        sums = np.zeros(centers.shape, np.float64)
        np.add.at(sums, nearest, x)
        for empty, far in zip(np.flatnonzero(counts == 0), np.argsort(-distance, kind="stable")):
            counts[nearest[far]] -= 1
            sums[nearest[far]] -= x[far]
            counts[empty], sums[empty], nearest[far] = 1, x[far], empty
        centers = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
        before = nearest
    return centers


def mini_batches(
    x: np.ndarray, centers: np.ndarray, rng: np.random.Generator, iterations: int, batch: int
) -> np.ndarray:
    """The centers after mini-batches of random vectors; each is the mean of all it has had."""
    counts, sums = np.zeros(len(centers)), np.zeros(centers.shape, np.float64)
    for _ in range(iterations):
        part = x[rng.integers(len(x), size=batch)]
        nearest, _ = assign(part, centers)
        counts += np.bincount(nearest, minlength=len(centers))
        np.add.at(sums, nearest, part)
        seen = counts > 0
        centers = centers.copy()
        centers[seen] = (sums[seen] / counts[seen, None]).astype(np.float32)
    return centers


def assign(x: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N] the nearest center of each vector, of equally near ones the first, and the squared
    distance. Infinite centers are none."""
    nearest, distance = np.empty(len(x), np.int64), np.empty(len(x), np.float64)
    used = np.flatnonzero(np.isfinite(centers[:, 0]))
    known = centers[used].astype(np.float64)
    square = np.square(known).sum(1)
    for start in range(0, len(x), _CHUNK):
        part = np.asarray(x[start : start + _CHUNK], np.float64)
        all_ = np.square(part).sum(1)[:, None] - 2 * part @ known.T + square
        best = all_.argmin(1)
        nearest[start : start + _CHUNK] = used[best]
        distance[start : start + _CHUNK] = np.maximum(all_[np.arange(len(part)), best], 0)
    return nearest, distance


def save(clusters: Clusters, folder: str | os.PathLike) -> None:
    """Write a folder; see the module."""
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"centers.{i}": np.asarray(x, order="C") for i, x in enumerate(clusters.centers)}
    temporary = folder / "clusters.safetensors.partial"
    save_file({**arrays, "counts": clusters.counts}, temporary)
    temporary.replace(folder / "clusters.safetensors")
    about = {
        "format": FORMAT,
        "levels": len(clusters.centers),
        "k": clusters.k,
        "width": int(clusters.centers[0].shape[-1]),
        "features": dict(clusters.features),
        "leaves_used": int((clusters.counts > 0).sum()),
        "vectors": int(clusters.counts.sum()),
    }
    storage.write(folder / "clusters.json", json.dumps(about, indent=2) + "\n")


def is_saved(folder: str | os.PathLike) -> bool:
    """Whether `save` has written this folder."""
    return (Path(folder).expanduser() / "clusters.json").exists()


def load(folder: str | os.PathLike) -> Clusters:
    """Read a folder that `save` wrote.

    Raises:
      ValueError: no such folder, a damaged file, or another format.
    """
    folder = Path(folder).expanduser()
    path = folder / "clusters.json"
    if not path.is_file():
        raise ValueError(
            f"There are no clusters in '{folder}': make them by `python -m mmjax.cluster_video`."
        )
    try:
        about = text_file.parse_json(path.read_bytes())
        version = about.get("format")
        if version != FORMAT:
            raise FormatError(
                f"'{path}' has the format {version}, and this version of mmjax reads {FORMAT}."
            )
        arrays = load_file(folder / "clusters.safetensors")
        centers = tuple(arrays[f"centers.{i}"] for i in range(about["levels"]))
        shapes = [x.shape for x in centers]
        k, width = about["k"], about["width"]
        if not shapes or shapes != [(k**i, k, width) for i in range(len(centers))]:
            raise TypeError(f"the centers have the shapes {shapes}")
        if arrays["counts"].shape != (k ** len(centers),):
            raise TypeError(f"there are {arrays['counts'].shape} counts")
        return Clusters(centers, arrays["counts"], dict(about["features"]))
    except FormatError:
        raise
    except (*_DAMAGED, SafetensorError) as error:
        raise ValueError(f"The clusters in '{folder}' are damaged ({error}).") from None
