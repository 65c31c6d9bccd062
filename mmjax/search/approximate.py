"""Approximate top-k by an HNSW graph, which finds most of the best rows and reads few vectors.

    approximate-G-N.usearch     in an index's folder: the first N rows of generation G

Rows are never changed in place, so the name identifies the contents. A graph with fewer rows is
extended; one of another generation is rebuilt. The scores of the results are exact.

Source: HNSW, Malkov and Yashunin 2016 (arXiv 1603.09320), by the package usearch.
"""

import importlib.util
import os
from pathlib import Path

import numpy as np

from mmjax.process.progress import Progress
from mmjax.search.index import Index

CHUNK = 8192  # rows added at once
CANDIDATES = 256  # search width; usearch's default of 64 has lower recall


def check_package() -> None:
    """Raise ValueError if usearch is not installed."""
    if importlib.util.find_spec("usearch") is None:
        raise ValueError(
            "The package usearch is missing: install it with pip install -e '.[approximate]'."
        )


def build(index: Index) -> None:
    """Bring the graph of an index up to date; old graphs are deleted afterwards."""
    path, before = _path(index), _existing(index)
    if path in before:
        return
    same = [p for p in before if _generation(p) == index.about["generation"]]
    for partial in index.folder.glob("approximate-*.partial"):  # left by an interrupted run
        partial.unlink()
    start, graph = max(map(_rows, same), default=0), _new(index)
    if start:
        graph.load(next(p for p in same if _rows(p) == start))
    with Progress(f"Linking {index.root.name}", index.rows - start) as bar:
        for first in range(start, index.rows, CHUNK):
            rows = np.arange(first, min(first + CHUNK, index.rows))
            graph.add(rows, _vectors(index, rows))
            bar.advance(len(rows))
    partial = path.with_suffix(".partial")
    graph.save(partial)
    os.replace(partial, path)
    for old in before:
        old.unlink()


class Graph:
    """The graph of an index, with the same search method as `Gallery`.

    Raises:
      ValueError: there is no graph, or the index has changed since it was built.
    """

    def __init__(self, index: Index):
        check_package()
        path = _path(index)
        if not path.exists():
            why = (
                "has changed since its approximate index was made"
                if _existing(index)
                else "has none"
            )
            raise ValueError(
                f"The index '{index.folder}' {why}: run `python -m mmjax.search index "
                f"{index.root} --model={index.about['model']} --index={index.folder} "
                "--approximate` first."
            )
        self._index, self._graph = index, _new(index)
        self._graph.view(path)

    def search(self, queries: np.ndarray, k: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Approximately the k best rows of each query, best first; sometimes fewer.

        Args:
          queries: `[Q, D]` float32.

        Returns:
          For each query the scores, float32, and the rows, int64.
        """
        found = [self._best(query, k) for query in np.asarray(queries, np.float32)]
        return [scores for scores, _ in found], [rows for _, rows in found]

    def _best(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        found = self._graph.search(query, min(k, self._index.rows))
        rows = np.sort(np.asarray(found.keys).astype(np.int64))
        scores = _vectors(self._index, rows) @ query
        order = np.argsort(-scores, kind="stable")
        return scores[order], rows[order]


def _new(index: Index):
    """An empty graph for an index's vectors; it stores them in float16."""
    from usearch.index import Index as HNSW

    return HNSW(
        ndim=index.about["dim"],
        metric="ip",
        dtype="f16",
        expansion_search=CANDIDATES,
        enable_key_lookups=False,
    )


def _vectors(index: Index, rows: np.ndarray) -> np.ndarray:
    """Rows of an index `[n, D]` as float32."""
    vectors = index.vectors[rows].astype(np.float32)
    return vectors if index.scales is None else vectors * index.scales[rows][:, None]


def _path(index: Index) -> Path:
    name = f"approximate-{index.about['generation']}-{index.rows}.usearch"
    return index.folder / name


def _existing(index: Index) -> list[Path]:
    return list(index.folder.glob("approximate-*.usearch"))


def _generation(path: Path) -> int:
    return int(path.stem.split("-")[1])


def _rows(path: Path) -> int:
    return int(path.stem.split("-")[2])
