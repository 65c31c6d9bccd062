"""Retrieval metrics of many images and captions, in this checkout and in another one.

    git worktree add /tmp/before main~20
    python experiments/benchmarks/retrieval_scale.py --against=/tmp/before
    python experiments/benchmarks/retrieval_scale.py --images=100000 --rounds=1

Every image has 5 captions; `--noise` is that of the embeddings around a common direction of the
image, in lengths of it, so that metrics are neither 0 nor 1. Every run is a process of its own,
which reads the embeddings from a file; checkouts take turns. Each reports seconds, CPU seconds, its
largest resident size, and the metrics, which must be equal up to --tolerance. Results are in
retrieval_scale.md.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CAPTIONS = 5


def make(folder, images, dim, noise):
    """Unit embeddings of images and of their captions, as files."""
    import numpy as np

    rng = np.random.default_rng(0)
    image = rng.standard_normal((images, dim), np.float32)
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    np.save(folder / "image.npy", image)
    text = np.lib.format.open_memmap(
        folder / "text.npy", "w+", np.float32, (images * CAPTIONS, dim)
    )
    for start in range(0, images, 1000):
        rows = np.repeat(image[start : start + 1000], CAPTIONS, axis=0)
        rows += noise / dim**0.5 * rng.standard_normal(rows.shape, np.float32)
        part = slice(start * CAPTIONS, start * CAPTIONS + len(rows))
        text[part] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    text.flush()


def work(folder):
    """Print the metrics, and what they took, as one line of JSON."""
    import numpy as np

    from mmjax.evals.retrieval import caption_ids, retrieval_metrics

    image, text = np.load(folder / "image.npy"), np.load(folder / "text.npy")
    index = np.repeat(np.arange(len(image)), CAPTIONS)
    ids = caption_ids([f"caption {n}" for n in range(len(text))])
    cpu, start = time.process_time(), time.perf_counter()
    metrics = retrieval_metrics(image, text, index, text_ids=ids)
    took = {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    took["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(json.dumps({**took, "metrics": metrics}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--noise", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--tolerance", type=float, default=1e-6)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work)
        return
    checkouts = {"here": ROOT} | ({"against": args.against.resolve()} if args.against else {})
    found = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory(prefix="mmjax-retrieval-") as folder:
        make(Path(folder), args.images, args.dim, args.noise)
        for n in range(args.rounds):
            for name, checkout in checkouts.items():
                command = [sys.executable, __file__, f"--work={folder}"]
                env = {"PYTHONPATH": str(checkout), "PATH": ""}
                done = subprocess.run(command, stdout=subprocess.PIPE, env=env, check=True)
                found[name].append(run := json.loads(done.stdout))
                numbers = ", ".join(f"{key} {run[key]:.1f}" for key in ("wall", "cpu", "peak"))
                print(f"round {n}, {name}: {numbers}", flush=True)
    metrics = found["here"][0]["metrics"]
    print(json.dumps(metrics, indent=1))
    for run in found.get("against", []):
        worst = max(abs(run["metrics"][key] - value) for key, value in metrics.items())
        print(f"largest difference of a metric: {worst:.1e}")
        if worst > args.tolerance:
            raise SystemExit("the metrics differ")
    for key in ("wall", "cpu", "peak") if args.against else ():
        ratios = [b[key] / a[key] for a, b in zip(found["here"], found["against"])]
        print(
            f"{key}: {statistics.median(ratios):.1f} times ({min(ratios):.1f} to {max(ratios):.1f})"
        )


if __name__ == "__main__":
    main()
