"""Exact top-10 of 1,000 queries among a million vectors on CPU: ours beside faiss, numpy, usearch.

    python experiments/benchmarks/search_top_k.py
    python experiments/benchmarks/search_top_k.py --vectors 100000 --rounds 2

Every contender is a process of its own, warmed up. In each round they take turns, so that a busy
machine disturbs all alike; a ratio is the median over rounds of (peer's time / ours in the same
round), above 1 where ours is faster. All are given 2 threads.

The vectors are random directions, with --crowded close to one another, where rough scores are of
least use, or with --clusters=N around so many random directions (a cosine of 0.8 within one), as
images of N kinds. Recall is the share of the exact 10 (numpy's, in fp32) that is found.

The peers live in build/search-venv. faiss is its flat index (IndexFlatIP), usearch its exact
search; both of them and numpy in fp32. hnsw_N is usearch's graph of neighbours as
`mmjax.search --approximate` makes it, keeping N candidates in mind while it searches; the time to
make it is printed. Ours reads fp32, fp16 or int8 from memory-mapped files; ours_plain does without
bf16.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from workers import ROOT, Process, answer, rounds_of

VENV = ROOT / "build" / "search-venv"
PEERS = ("faiss-cpu==1.15.1", "usearch==2.26.6", "numpy==2.4.6")
DIM, QUERIES, K = 512, 1000, 10
ALONE = 50  # of the queries are asked one by one besides
# storage, and dtype of the first stage; None: bfloat16, where the machine has it
OURS = {
    "ours": ("float32", None),
    "ours_plain": ("float32", "float32"),
    "ours_fp16": ("float16", None),
    "ours_int8": ("int8", None),
}
HNSW = {"hnsw_64": 64, "hnsw_256": 256, "hnsw_1024": 1024}


# ---- contenders: folder -> search(queries [Q, D]) -> rows [Q, K] ---------------------------------


def ours(folder, storage, dtype):
    import numpy as np

    from mmjax.process import runtime

    runtime.prepare()
    from mmjax.search.top_k import Gallery

    vectors = np.load(folder / f"{storage}.npy", mmap_mode="r")
    scales = np.load(folder / "scales.npy") if storage == "int8" else None
    gallery = Gallery(vectors, scales, dtype)
    return lambda queries: gallery.search(queries, K)[1]


def numpy_blocks(folder):
    import numpy as np

    vectors = np.load(folder / "float32.npy", mmap_mode="r")

    def best(scores, rows):
        kept = np.argpartition(scores, -K, axis=1)[:, -K:]
        return np.take_along_axis(scores, kept, 1), np.take_along_axis(rows, kept, 1)

    def search(queries):
        scores = np.empty((len(queries), 0), np.float32)
        rows = np.empty((len(queries), 0), np.int64)
        for start in range(0, len(vectors), 65536):
            block = queries @ vectors[start : start + 65536].T
            places = np.broadcast_to(np.arange(block.shape[1]) + start, block.shape)
            found = best(block, places)
            scores, rows = best(
                np.concatenate([scores, found[0]], 1), np.concatenate([rows, found[1]], 1)
            )
        return rows

    return search


def faiss_flat(folder):
    import faiss
    import numpy as np

    faiss.omp_set_num_threads(2)
    index = faiss.IndexFlatIP(DIM)
    index.add(np.load(folder / "float32.npy"))
    return lambda queries: index.search(queries, K)[1]


def usearch_exact(folder):
    import numpy as np
    from usearch.index import MetricKind, search

    vectors = np.load(folder / "float32.npy")
    return lambda queries: search(vectors, queries, K, MetricKind.IP, exact=True, threads=2).keys


def hnsw(folder, candidates):
    """The first one makes the graph, and says how long that took."""
    import numpy as np
    from usearch.index import Index

    graph = Index(ndim=DIM, metric="ip", dtype="f16", enable_key_lookups=False)
    path = folder / "graph.usearch"
    if path.exists():
        graph.load(path)
    else:
        vectors = np.load(folder / "float32.npy", mmap_mode="r")
        cpu, start = time.process_time(), time.perf_counter()
        for first in range(0, len(vectors), 8192):
            rows = np.arange(first, min(first + 8192, len(vectors)))
            graph.add(rows, vectors[rows], threads=2)
            done = (first + len(rows)) / len(vectors)
            print(f"graph: {done:.0%}, {time.perf_counter() - start:.0f} s", file=sys.stderr)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(f"graph: {wall:.0f} s, {cpu:.0f} CPU s", file=sys.stderr)
        graph.save(path)
        print(f"graph: {path.stat().st_size / 1e6:.0f} MB", file=sys.stderr)
    graph.expansion_search = candidates
    return lambda queries: graph.search(queries, K, threads=2).keys


def contender(name, folder):
    peers = {"numpy": numpy_blocks, "faiss": faiss_flat, "usearch": usearch_exact}
    if name in HNSW:
        return hnsw(folder, HNSW[name])
    return ours(folder, *OURS[name]) if name in OURS else peers[name](folder)


def work(name, folder):
    """A contender's process: one line in for each request, one line of JSON out."""
    import numpy as np

    search, queries = contender(name, folder), np.load(folder / "queries.npy")
    exact = folder / "exact.npy"
    search(queries[:1])
    rows = np.asarray(search(queries))
    if name == "numpy":
        np.save(exact, rows)
    answer({"ready": name, "recall": recall(np.load(exact), rows)})
    for _ in sys.stdin:
        cpu, start = time.process_time(), time.perf_counter()
        search(queries)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        start = time.perf_counter()
        for i in range(ALONE):
            search(queries[i : i + 1])
        answer({"wall": wall, "cpu": cpu, "alone": (time.perf_counter() - start) / ALONE})


def recall(exact, rows):
    """The share of the exact rows that are found."""
    shared = [len(set(a) & set(b)) for a, b in zip(exact.tolist(), rows.tolist())]
    return sum(shared) / exact.size


def start(name, folder):
    """A contender's process."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "2")
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | threads
    python = sys.executable if name in OURS else VENV / "bin" / "python"
    return Process(name, [python, __file__, "--work", name, folder], env)


def make_vectors(folder, count, crowded, clusters):
    """Write vectors in all storages, and queries near some of them."""
    import numpy as np

    sys.path.insert(0, str(ROOT))
    from mmjax.search import storage

    rng = np.random.default_rng(0)
    files = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", "w+", np.dtype(name), shape=(count, DIM)
        )
        for name in storage.KINDS
    }
    scales = np.empty(count, np.float32)
    centre = rng.standard_normal((1, DIM), np.float32) if crowded else 0
    centres = rng.standard_normal((clusters, DIM), np.float32) if clusters else None
    queries = []
    for start in range(0, count, 50_000):
        block = rng.standard_normal((min(50_000, count - start), DIM), np.float32) + centre
        if clusters:
            block = centres[rng.integers(0, clusters, len(block))] + block / 2
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        for name, file in files.items():
            file[start : start + len(block)], found = storage.encode(block, name)
        scales[start : start + len(block)] = found  # int8 is the last
        queries.append(block[rng.integers(0, len(block), -(-QUERIES * 50_000 // count))])
    queries = np.concatenate(queries)[:QUERIES]
    queries = queries + 0.08 * rng.standard_normal(queries.shape, np.float32)
    np.save(folder / "queries.npy", queries / np.linalg.norm(queries, axis=1, keepdims=True))
    np.save(folder / "scales.npy", scales)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["numpy", "faiss", "usearch", *OURS, *HNSW]
    usual = [name for name in names if name not in HNSW]
    parser.add_argument("--contenders", nargs="+", choices=names, default=usual)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crowded", action="store_true")
    parser.add_argument("--clusters", type=int, default=0)
    args = parser.parse_args()
    if not (VENV / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([VENV / "bin" / "python", "-m", "pip", "install", "-q", *PEERS], check=True)
        (VENV / "done").touch()
    with tempfile.TemporaryDirectory() as folder:
        make_vectors(Path(folder), args.vectors, args.crowded, args.clusters)
        asked = ["numpy", *(n for n in args.contenders if n != "numpy")]  # it says what is exact
        workers = [start(name, folder) for name in asked]
        results = rounds_of(workers, args.rounds)
        print(f"{args.vectors:,} x {DIM}, {QUERIES} queries, {args.rounds} rounds")
        for worker in workers:
            name, size = worker.name, QUERIES
            wall = statistics.median(r[name]["wall"] for r in results)
            cpu = statistics.median(r[name]["cpu"] for r in results)
            line = f"  {name:10s} {size / wall:6.0f} queries/s  cpu {cpu:5.2f} s"
            alone = statistics.median(r[name]["alone"] for r in results)
            line += f"  recall {worker.ready['recall']:.4f}  one alone {1000 * alone:6.2f} ms"
            for mine in (m for m in OURS if m in args.contenders and name not in OURS):
                each = [r[name]["wall"] / r[mine]["wall"] for r in results]
                line += f"  {mine} {statistics.median(each):.2f}x"
                line += f" ({min(each):.2f} to {max(each):.2f})"
            print(line, flush=True)
            worker.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
