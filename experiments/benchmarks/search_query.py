"""One query from the command line to a large index, in this checkout and in another one.

    git worktree add /tmp/before main~20
    python experiments/benchmarks/search_query.py --model=MODEL --against=/tmp/before

An index of --vectors random vectors is written for MODEL (a workdir or a published folder with two
towers), and `python -m mmjax.search query` is run on it, the checkouts in turn; the first round
fills the compile cache and is left out. Wall and CPU seconds are of the whole process, medians
over rounds. Results are in search_top_k.md.
"""

import argparse
import hashlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
BLOCK = 10000


def write_index(folder, model, count):
    """An index of random unit vectors, each with a file of its own, as `mmjax.search index` has."""
    import numpy as np

    from mmjax.embedder import open_embedder
    from mmjax.search import lookup, text_tower
    from mmjax.search.index import File, Writer, create

    embedder = open_embedder(model, sizes=(1,))
    dim = embedder.loaded.config["embed_dim"]
    create(folder, folder, model, embedder.fingerprint, dim, "float16")
    writer, rng = Writer(folder), np.random.default_rng(0)
    for start in range(0, count, BLOCK):
        numbers = range(start, min(start + BLOCK, count))
        vectors = rng.standard_normal((len(numbers), dim), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        digests = [hashlib.sha256(str(n).encode()).hexdigest() for n in numbers]
        names = [f"2019/holiday {n // 100}/IMG_{n:06d}.jpg" for n in numbers]
        files = zip(names, digests, numbers, strict=True)
        writer.append(vectors, [File(p, 3_000_000 + n, 10**18 + n, d, n) for p, d, n in files])
    lookup.write(folder, 0)
    print(f"dim {dim}, text tower recorded: {text_tower.save(embedder)}")


def query(checkout, index):
    """(wall, CPU) seconds of the command."""
    command = [sys.executable, "-m", "mmjax.search", "query", "a red bus", f"--index={index}"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--vectors", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, help="another checkout")
    args = parser.parse_args()
    model = Path(args.model).resolve()
    checkouts = {"here": ROOT} | ({"against": args.against.resolve()} if args.against else {})
    found, said = {name: [] for name in checkouts}, {}
    with tempfile.TemporaryDirectory(prefix="mmjax-query-") as folder:
        os.environ.setdefault("MMJAX_DATA_DIR", f"{folder}/cache")
        write_index(Path(folder, "index"), model, args.vectors)
        for n in range(args.rounds + 1):
            for name, checkout in checkouts.items():
                wall, cpu, said[name] = query(checkout, f"{folder}/index")
                print(f"round {n}, {name}: wall {wall:.2f}, cpu {cpu:.2f}", flush=True)
                found[name] += [(wall, cpu)] if n else []
    print(said["here"])
    if len(set(said.values())) > 1:
        print(f"the other one says\n{said['against']}")
    for name, runs in found.items():
        wall, cpu = (statistics.median(values) for values in zip(*runs))
        print(f"{name}: wall {wall:.2f}, cpu {cpu:.2f}")


if __name__ == "__main__":
    main()
