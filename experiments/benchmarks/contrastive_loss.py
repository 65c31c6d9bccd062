"""Time and memory of the contrastive losses, forward and backward, dense against chunked.

    python experiments/benchmarks/contrastive_loss.py
    python experiments/benchmarks/contrastive_loss.py --peer-python PYTHON_WITH_TORCH

Every case is a process of its own, so that its peak memory is its own; the cases of one size take
turns, one step each, so that a change of the machine's speed affects all of them. Times are
medians; ratios are medians over the rounds of (dense / case), hence more stable than the times.
Memory is the peak resident size over the steps, minus that before the first one (with inputs and
compiled program). Linux only: the peak is reset through /proc.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

SCALE, BIAS = 20.0, -10.0


def embeddings(n, dim):
    """Matching unit pairs with a cosine of about 0.45."""
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, dim), np.float32)
    y = x + 2 * rng.standard_normal((n, dim), np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True), y / np.linalg.norm(
        y, axis=1, keepdims=True
    )


def jax_step(case):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    import jax

    from mmjax.losses.contrastive import contrastive_loss

    def loss(x, y, scale, bias):
        losses, metrics = contrastive_loss(
            x,
            y,
            scale,
            bias,
            kind=case["kind"],
            implementation=case["form"],
            chunk_size=case["chunk_size"],
        )
        return losses.mean(), metrics

    x, y = map(jax.numpy.asarray, embeddings(case["n"], case["dim"]))
    grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))
    compiled = grad.lower(x, y, SCALE, BIAS).compile()

    def step():
        (value, _), _ = jax.block_until_ready(compiled(x, y, SCALE, BIAS))
        return float(value)

    return step


def torch_step(case):
    """The loss as PyTorch code usually computes it: all logits, autograd."""
    import torch
    import torch.nn.functional as F

    x, y = (torch.from_numpy(a).requires_grad_() for a in embeddings(case["n"], case["dim"]))
    scale, bias = (torch.tensor(v, requires_grad=True) for v in (SCALE, BIAS))
    labels = torch.arange(case["n"])

    def step():
        for parameter in (x, y, scale, bias):
            parameter.grad = None
        if case["kind"] == "softmax":
            by_image, by_text = scale * x @ y.T, scale * y @ x.T
            value = (F.cross_entropy(by_image, labels) + F.cross_entropy(by_text, labels)) / 2
        else:
            signs = 2 * torch.eye(case["n"]) - 1
            value = -F.logsigmoid(signs * (scale * x @ y.T + bias)).sum() / case["n"]
        value.backward()
        return float(value)

    return step


def memory_mb(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def worker(case):
    """Take one step for each line on stdin; answer with a line of JSON."""
    step = torch_step(case) if case["form"] == "torch" else jax_step(case)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from here
    before = memory_mb("VmRSS")
    for _ in sys.stdin:
        start = time.perf_counter()
        value = step()
        seconds = time.perf_counter() - start
        added = memory_mb("VmHWM") - before
        print(json.dumps({"seconds": seconds, "added_mb": added, "loss": value}), flush=True)


def measure(cases, rounds, peer_python):
    """Per case: (seconds of each round, added MB, loss)."""
    workers = []
    for case in cases:
        python = peer_python if case["form"] == "torch" else sys.executable
        command = [python, __file__, "--worker", json.dumps(case)]
        pipe = subprocess.PIPE
        workers.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))

    def step(process):
        process.stdin.write("step\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    for process in workers:  # warm up
        step(process)
    answers = [[step(process) for process in workers] for _ in range(rounds)]
    for process in workers:
        process.stdin.close()
        process.wait()
    by_case = list(zip(*answers, strict=True))
    return [([a["seconds"] for a in b], b[-1]["added_mb"], b[-1]["loss"]) for b in by_case]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--kinds", nargs="+", default=["softmax", "sigmoid"])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--chunk-size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-python", help="a Python that has torch, to measure it as well")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(json.loads(args.worker))
        return
    forms = ["dense", "chunked"] + ["torch"] * bool(args.peer_python)
    print(
        "| loss | N | form | s | dense / s | MB added | dense / MB |\n|---|---|---|---|---|---|---|"
    )
    for kind in args.kinds:
        for n in args.sizes:
            shared = {"kind": kind, "n": n, "dim": args.dim, "chunk_size": args.chunk_size}
            cases = [{"form": form, **shared} for form in forms]
            results = measure(cases, args.rounds, args.peer_python)
            dense_seconds, dense_mb, dense_loss = results[0]
            for form, (seconds, mb, loss) in zip(forms, results, strict=True):
                assert abs(loss - dense_loss) < 1e-4 * abs(dense_loss), (form, loss, dense_loss)
                ratio = statistics.median(
                    d / s for d, s in zip(dense_seconds, seconds, strict=True)
                )
                print(
                    f"| {kind} | {n:,} | {form} | {statistics.median(seconds):.3f} | {ratio:.2f} "
                    f"| {mb:,.0f} | {dense_mb / max(mb, 1):.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
