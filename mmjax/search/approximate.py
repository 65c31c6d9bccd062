"""The k best by a graph of neighbours, which finds most of them and looks at few vectors.

    approximate-G-N.usearch     beside an index: of generation G, its first N rows

Rows are never changed in place, so the name says what the graph is of. One that is of fewer rows is
added to; one of another generation is made anew. The scores of what is found are exact.

Source: HNSW, Malkov and Yashunin 2016 (arXiv 1603.09320), by the package usearch.
"""

import importlib.util
import os
from pathlib import Path

import numpy as np

from mmjax.process.progress import Progress
from mmjax.search.index import Index

CHUNK = 8192  # rows added at once
CANDIDATES = 256  # that a search keeps in mind; usearch's own 64 finds fewer


def check_package() -> None:
    """Raise ValueError where usearch is not installed."""
    if importlib.util.find_spec("usearch") is None:
        raise ValueError(
            "The package usearch is missing: install it with pip install -e '.[approximate]'."
        )


def build(index: Index) -> None:
    """Bring the graph beside an index up to date; one of before is deleted when that is done."""
    path, before = _path(index), _made(index)
    if path in before:
        return
    same = [p for p in before if _generation(p) == index.about["generation"]]
    for torn in index.folder.glob("approximate-*.partial"):  # a kill has left it
        torn.unlink()
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
    """The graph beside an index, searched as a `Gallery` is.

    Raises:
      ValueError: there is none, or the index has changed since.
    """

    def __init__(self, index: Index):
        check_package()
        path = _path(index)
        if not path.exists():
            why = "has changed since its approximate index was made" if _made(index) else "has none"
            raise ValueError(
                f"The index '{index.folder}' {why}: run `python -m mmjax.search index "
                f"{index.root} --model={index.about['model']} --index={index.folder} "
                "--approximate` first."
            )
        self._index, self._graph = index, _new(index)
        self._graph.view(path)

    def search(self, queries: np.ndarray, k: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """About the k best of each query, best first; now and then fewer.

        Args:
          queries: `[Q, D]` float32.

        Returns:
          of each query the scores, float32, and the rows, int64.
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
    """An empty graph for an index's vectors, which it keeps in float16."""
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


def _made(index: Index) -> list[Path]:
    return list(index.folder.glob("approximate-*.usearch"))


def _generation(path: Path) -> int:
    return int(path.stem.split("-")[1])


def _rows(path: Path) -> int:
    return int(path.stem.split("-")[2])
