"""One CLIP training step on a GPU: ours against open_clip with torch.compile, on the same card.

    python experiments/benchmarks/gpu_step.py          # sets up the peers in build/bench-venv, once
    python experiments/benchmarks/gpu_step.py --toy    # on CPU in a minute, to see that it runs

Forward, backward and AdamW of ViT-B/32 and B/16 at 224 pixels in bf16, on a fixed batch, compiled
and warmed up beforehand. The contenders share the card and take turns in each round; a ratio is the
median over rounds of (peer's time / ours in the same round), above 1 where ours is faster. MFU: the
matmuls' FLOPs (contenders.py) over the card's dense bf16 peak (mmjax/plan/chips.py). What is equal
between the contenders and what is not: see step.py. A contender that is missing or fails, for
instance out of memory, is named and left out. Ours needs a jax that sees the card:
pip install 'jax[cuda13]' (or cuda12).
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from contenders import CONTENDERS, SCRIPT, flops
from workers import ROOT, VENV, Worker, rounds_of, set_up_peers

sys.path.insert(0, str(ROOT))

from mmjax.plan.chips import CHIPS  # noqa: E402

TEXT = {"t": (512, 12, 8), "length": 77, "vocab": 49408, "embed": 512}
SIZES = {
    "ViT-B/32": {"image": 224, "patch": 32, "v": (768, 12, 12), "batch": 512, **TEXT},
    "ViT-B/16": {"image": 224, "patch": 16, "v": (768, 12, 12), "batch": 256, **TEXT},
}
TOY = {"image": 32, "patch": 16, "v": (64, 2, 2), "t": (64, 2, 2)}
TOY |= {"length": 8, "vocab": 512, "embed": 64, "batch": 8}


def start(names, workload, args):
    """Those contenders that can be started; the others are named."""
    workers = []
    for name in names:
        if name != "ours" and not args.peers_python.exists():
            print(f"{name}: left out, there is no {args.peers_python}", flush=True)
            continue
        try:
            worker = Worker(
                name, workload, "bfloat16", args.steps, "stock", SCRIPT, args.peers_python
            )
        except SystemExit as error:
            print(f"{name}: left out. {error}", flush=True)
        else:
            workers.append(worker)
    return workers


def rows(model, workload, workers, results):
    """A line of the table for each contender."""
    work = flops(workload)
    for worker in workers:
        seconds = statistics.median(r[worker.name]["wall"] for r in results)
        device = worker.ready["device"]
        chip = next((c for key, c in CHIPS.items() if key in device.lower()), None)
        mfu = f"{work / seconds / chip.flops:.1%}" if chip else "–"
        against = "–"
        if worker.name != "ours" and "ours" in results[0]:
            each = [r[worker.name]["wall"] / r["ours"]["wall"] for r in results]
            against = f"{statistics.median(each):.2f}× ({min(each):.2f} to {max(each):.2f})"
        cells = [model, f"{workload['batch']}", worker.name, f"{1e3 * seconds:,.1f}"]
        cells += [f"{workload['batch'] / seconds:,.0f}", f"{work / seconds / 1e12:,.1f}", mfu]
        yield "| " + " | ".join([*cells, against, device]) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="a toy size on CPU; installs nothing")
    both = ["ours", "open_clip_compiled"]
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=both)
    parser.add_argument("--batch", type=int, help="for a card with less memory than 80 GB")
    parser.add_argument(
        "--peers_python", type=Path, help="an interpreter that has torch and open_clip already"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="timed together, in each turn")
    args = parser.parse_args()
    if args.peers_python is None:
        args.peers_python = VENV / "bin" / "python"
        if not args.toy and set(args.contenders) - {"ours"}:
            try:
                set_up_peers()
            except subprocess.CalledProcessError as error:
                print(f"The peers could not be set up ({error}): going on without", flush=True)
    table = []
    for model, size in {"toy": TOY}.items() if args.toy else SIZES.items():
        workload = size | {"device": "cpu" if args.toy else "cuda"}
        workload["batch"] = args.batch or workload["batch"]
        workers = start(args.contenders, workload, args)
        if workers:
            table += rows(model, workload, workers, rounds_of(workers, args.rounds))
        for worker in workers:
            worker.close()
    if not table:
        sys.exit("No contender could be started.")
    print("\n| model | batch | contender | ms | images/s | TFLOP/s | MFU | against ours | device |")
    print("|---" * 9 + "|")
    print("\n".join(table))


if __name__ == "__main__":
    main()
