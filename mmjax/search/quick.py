"""A query of the command line that imports neither JAX nor a model.

It needs the recorded text tower of the index's model (`text_tower.py`) and the lookup of its files
(`lookup.py`), which `mmjax.search index` writes. The search is exact, as `top_k.py`'s, and gives
the same results.
"""

import argparse
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mmjax.search import text_tower
from mmjax.search.index import Hit, default_index, read_about
from mmjax.search.lookup import Lookup
from mmjax.workdir import jsonl
from mmjax.workdir.tables import print_table

CHUNK = 1024  # vectors that a thread widens to float32 at once: they stay in its cache
_HALF = np.float32(2.0**112)  # by which a float16's bits, as those of a float32, are too small
_HALF_BITS = np.int32(-0x70000001)  # the sign, and below it the shifted exponent and fraction


def answer(args: argparse.Namespace) -> bool:
    """Print the best images for a text; False, with nothing printed, if that needs the model.

    Raises:
      ValueError: no index, or one of another format.
    """
    if not args.what or args.image or args.model or args.approximate or args.k < 1:
        return False
    folder = Path(args.index or default_index())
    about = read_about(folder)
    try:
        lookup = Lookup(folder, about["generation"])
        vectors, scales = _vectors(folder, about)
    except (OSError, ValueError):
        return False
    listed = lookup.rows()
    if not len(listed) or listed[-1] >= len(vectors):  # damaged: `Index` says so
        return False
    tower = text_tower.find(about["fingerprint"])
    if tower is None:
        return False
    query = tower.embed(args.what)
    scores, rows = best(vectors, scales, query, listed, args.k)
    hits = [Hit(float(s), "", lookup.paths(int(row))) for s, row in zip(scores, rows)]
    print_hits(hits, Path(about["root"]), args.json)
    return True


def print_hits(hits: Iterable[Hit], root: Path, as_json: bool) -> None:
    """Print results: a table, or one line of JSON each."""
    if as_json:
        for hit in hits:
            path, *also = (str(root / p) for p in hit.paths)
            print(jsonl.line({"score": hit.score, "path": path, "also": also}))
    else:
        print_table([{"score": f"{h.score:.4f}", "path": root / h.paths[0]} for h in hits])


def best(
    vectors: np.ndarray, scales: np.ndarray | None, query: np.ndarray, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best of some rows by inner product with `query` `[D]`; ties: the lower row first.

    Args:
      vectors: `[N, D]`, perhaps memory-mapped, of at most unit length; scales: `[N]` or None.
      rows: ascending.

    Returns:
      scores and rows, `[min(k, len(rows))]`.
    """
    scores = np.full(len(vectors), -np.inf, np.float32)

    def score(start: int) -> None:
        part = slice(start, start + CHUNK)
        scores[part] = _products(vectors[part], query)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(score, range(0, len(vectors), CHUNK)))
    if scales is not None:
        scores *= scales
    scores = scores[rows]
    k = min(k, len(rows))
    # Twice the error of a sum of D products in fp32, see `Gallery._error_bound`.
    margin = 2 * 1.03 * vectors.shape[1] * 2**-23
    places = np.flatnonzero(scores >= np.partition(scores, -k)[-k] - margin)
    found = rows[places]
    exact = np.einsum("nd,d->n", vectors[found].astype(np.float32, copy=False), query)
    if scales is not None:
        exact *= scales[found]
    order = np.lexsort((found, -exact))[:k]
    return exact[order], found[order]


def _products(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Inner products `[N]` of finite vectors `[N, D]` with a query of unit length, in float32.

    A float16 is widened by shifting its bits, faster than by `astype`, to a float32 that is its
    2**-112; the query takes the factor, which is exact.
    """
    if vectors.dtype == np.float16:
        bits = vectors.view(np.int16).astype(np.int32)
        bits <<= 13
        bits &= _HALF_BITS
        vectors, query = bits.view(np.float32), query * _HALF
    # Not by BLAS: its threads would wait for those of the pool.
    return np.einsum("nd,d->n", vectors.astype(np.float32, copy=False), query)


def _vectors(folder: Path, about: dict) -> tuple[np.ndarray, np.ndarray | None]:
    path = folder / f"vectors-{about['generation']}.bin"
    width = about["dim"] * np.dtype(about["storage"]).itemsize
    rows = path.stat().st_size // width
    shape = (rows, about["dim"])
    vectors = np.memmap(path, about["storage"], "r", shape=shape) if rows else np.empty(shape)
    if about["storage"] != "int8":
        return vectors, None
    path = folder / f"scales-{about['generation']}.bin"
    return vectors, np.memmap(path, np.float32, "r", shape=(rows,)) if rows else None
