"""Metrics of large galleries and of many classes, in this checkout and in another one.

    git worktree add /tmp/before main~20
    python experiments/benchmarks/evaluation_scale.py retrieval --against=/tmp/before
    python experiments/benchmarks/evaluation_scale.py retrieval --images=100000 --rounds=1
    python experiments/benchmarks/evaluation_scale.py zero_shot --images=20000 --against=/tmp/before

Retrieval is of images with 5 captions each, zero-shot classification with --classes of them; from
embeddings, so no model runs. The second embedding of a pair is the first with noise, `--noise` is
its length, so that metrics are neither 0 nor 1. Every run is a process of its own, which reads the
embeddings from files; checkouts take turns. Each reports seconds, CPU seconds and its largest
resident size in MiB, and the metrics, which must be equal up to --tolerance. Results are in
evaluation_scale.md.
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


def make(folder, first, copies, dim, noise):
    """Unit embeddings `[first, D]`, and for each of them some with noise, as files."""
    import numpy as np

    rng = np.random.default_rng(0)
    one = rng.standard_normal((first, dim), np.float32)
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    np.save(folder / "one.npy", one)
    shape = (first * copies, dim)
    other = np.lib.format.open_memmap(folder / "other.npy", "w+", np.float32, shape)
    for start in range(0, first, 1000):
        rows = np.repeat(one[start : start + 1000], copies, axis=0)
        rows += noise / dim**0.5 * rng.standard_normal(rows.shape, np.float32)
        part = slice(start * copies, start * copies + len(rows))
        other[part] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    other.flush()


def retrieval(image, text):
    """As the evaluator `retrieval` calls it."""
    import numpy as np

    from mmjax.evals.retrieval import caption_ids, retrieval_metrics

    index = np.repeat(np.arange(len(image)), len(text) // len(image))
    ids = caption_ids([f"caption {n}" for n in range(len(text))])
    return retrieval_metrics(image, text, index, text_ids=ids)


def zero_shot(weights, image):
    """As the evaluator `zero_shot` and the report's section "confusion" call it."""
    import numpy as np

    from mmjax.evals import zero_shot
    from mmjax.report.sections.confusion import count_pairs

    names = [str(n) for n in range(len(weights))]
    labels = np.repeat(np.arange(len(weights)), len(image) // len(weights))
    if hasattr(zero_shot, "predict"):
        place, best = zero_shot.predict(image, weights, labels)
        metrics = zero_shot.place_metrics(place, labels, len(weights))
    else:
        scores = image @ weights.T
        metrics, best = zero_shot.classification_metrics(scores, labels), scores.argmax(axis=1)
    return metrics | {"right": float(count_pairs(labels, best, names).right)}


def work(kind, folder):
    """Print the metrics, and what they took, as one line of JSON."""
    import numpy as np

    one, other = np.load(folder / "one.npy"), np.load(folder / "other.npy")
    cpu, start = time.process_time(), time.perf_counter()
    metrics = {"retrieval": retrieval, "zero_shot": zero_shot}[kind](one, other)
    took = {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    took["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(json.dumps({**took, "metrics": metrics}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("retrieval", "zero_shot"))
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--classes", type=int, default=21000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--noise", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--tolerance", type=float, default=1e-6)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.kind, args.work)
        return
    checkouts = {"here": ROOT} | ({"against": args.against.resolve()} if args.against else {})
    found = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory(prefix="mmjax-scale-") as folder:
        first, copies = args.images, CAPTIONS
        if args.kind == "zero_shot":
            first, copies = args.classes, max(1, args.images // args.classes)
        make(Path(folder), first, copies, args.dim, args.noise)
        for n in range(args.rounds):
            for name, checkout in checkouts.items():
                command = [sys.executable, __file__, args.kind, f"--work={folder}"]
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
