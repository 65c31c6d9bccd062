"""One CLIP training step (forward, backward, AdamW) on CPU: ours against PyTorch implementations.

    python experiments/benchmarks/step.py                    # all: sets up the peers, once
    python experiments/benchmarks/step.py --contenders ours --workloads s16_64_b32 --processes 1

Every contender is a process of its own, on one fixed batch, compiled and warmed up beforehand. In
each round the contenders take turns, the others stopped, so that a busy machine affects all alike;
a ratio is the median over rounds of (peer's time / ours in the same round), above 1 where ours is
faster. The ratio of CPU times (all threads) depends less on other work on the machine. All of it is
repeated with fresh processes, since the memory layout matters. Peak memory: that of the steps, and
that of the whole process with the uncached compile (see workers.py).

Two allocators: `stock` is every contender by default, ours with its own settings
(mmjax/process/runtime.py); `same` gives these settings to the peers, too.

What is equal: sizes, batch, AdamW(1e-4, 0.9, 0.98, decay 0.2), fp32 parameters; bf16 is autocast
for PyTorch and `dtype="bfloat16"` for ours. What is not: open_clip keeps its exact GELU, which is
faster there than the quick GELU of the other two; ours also normalizes uint8 images.

The peers are installed in build/bench-venv: torch first, then peers.txt.
"""

import statistics

from contenders import CONTENDERS, SCRIPT, flops
from workers import Worker, measure_each, options, rounds_of

# widths, depths and heads of the image (v) and the text (t) tower
TEXT = {"length": 77, "vocab": 49408, "embed": 512}
S16 = {**TEXT, "image": 64, "patch": 16, "v": (384, 12, 6), "t": (384, 6, 6), "length": 32}
B32 = {**TEXT, "image": 224, "patch": 32, "v": (768, 12, 12), "t": (512, 12, 8)}
WORKLOADS = {
    "s16_64_b32": {**S16, "batch": 32},
    "s16_64_b128": {**S16, "batch": 128},
    "b32_224_b16": {**B32, "batch": 16},
}


def measure(workload, dtype, allocator, args):
    """Print the times and ratios of one workload."""
    results = []
    for _ in range(args.processes):
        on_cpu = WORKLOADS[workload] | {"device": "cpu"}
        workers = [Worker(c, on_cpu, dtype, args.steps, allocator, SCRIPT) for c in args.contenders]
        results += rounds_of(workers, args.rounds)
        for worker in workers:
            worker.close()
    print(f"\n{workload} {dtype}, allocator {allocator}")
    work_done, ratios = flops(WORKLOADS[workload]), {}
    for name in args.contenders:
        median = {
            key: statistics.median(r[name][key] for r in results)
            for key in ("wall", "cpu", "rss", "peak")
        }
        line = f"  {name:13s} {1e3 * median['wall']:7.0f} ms  cpu {1e3 * median['cpu']:7.0f} ms"
        line += f"  {work_done / median['wall'] / 1e9:4.0f} GFLOP/s"
        line += f"  RSS {median['rss']:5.0f} MiB, with the compile {median['peak']:5.0f}"
        if name != "ours" and "ours" in args.contenders:
            each = [r[name]["wall"] / r["ours"]["wall"] for r in results]
            ratios[name] = statistics.median(each)
            line += f"  {ratios[name]:.2f}x ours ({min(each):.2f} to {max(each):.2f})"
            cpu = statistics.median(r[name]["cpu"] / r["ours"]["cpu"] for r in results)
            line += f", CPU time {cpu:.2f}x"
        print(line, flush=True)
    if ratios:
        best = min(ratios, key=ratios.get)
        print(f"  ours is {ratios[best]:.2f}x as fast as the best peer, {best}", flush=True)


def main():
    usual = [name for name in CONTENDERS if name != "open_clip_compiled"]
    parser = options(__doc__.splitlines()[0], CONTENDERS, WORKLOADS, usual)
    parser.add_argument("--steps", type=int, default=2, help="timed together, in each turn")
    measure_each(parser.parse_args(), measure)


if __name__ == "__main__":
    main()
