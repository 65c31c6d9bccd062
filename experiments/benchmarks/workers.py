"""Processes that a benchmark times in turn: while one runs, the others are stopped.

A contender is a process of its own, compiled and warmed up beforehand. Threads of a waiting process
may spin (OpenMP's do), which slows the next one: so all but one get SIGSTOP.

Peak memory is reported by phase: `build` is the largest resident size while the model is made
and compiled (nothing is read from jax's compile cache), `rss` that of the steps after the warm-up,
`peak` that of the whole process. The kernel forgets a peak by a write to /proc/self/clear_refs.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / "build" / "bench-venv"
TORCH = "torch==2.13.0"


# ---- inside: one line in for each request, one line of JSON out ----------------------------------


def work(name, workload, steps, build):
    """Call `build() -> step`, warm up, then time `steps` steps at every line that comes in."""
    from mmjax.process import runtime

    runtime.prepare()
    step = build()
    peaks = [peak_memory()]
    losses = [float(step()) for _ in range(3)]
    peaks.append(peak_memory())
    answer({"losses": losses, "device": device_name(name, workload), "build": peaks[0]})
    for _ in sys.stdin:
        cpu, start = time.process_time(), time.perf_counter()
        for _ in range(steps):
            loss = step()
        float(loss)  # waits for it
        taken = time.perf_counter() - start, time.process_time() - cpu
        peaks.append(peak_memory())
        answer(
            {
                "wall": taken[0] / steps,
                "cpu": taken[1] / steps,
                "rss": peaks[-1],
                "peak": max(peaks),
            }
        )


def peak_memory():
    """The largest resident size in MiB since the last call, or since the start if the kernel cannot
    reset it."""
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = (x for x in status if x.startswith("VmHWM"))
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return int(line.split()[1]) / 1024


def device_name(name, workload):
    """The name of the machine's accelerator."""
    if name == "ours":
        import jax

        return jax.devices()[0].device_kind
    import torch

    return torch.cuda.get_device_name() if workload["device"] == "cuda" else "cpu"


def answer(values):
    print("ANSWER " + json.dumps(values), flush=True)


def asked_for(argv):
    """(name, workload, dtype, steps) of a process that `Worker` has started."""
    _, name, workload, dtype, steps = argv[1:]
    return name, json.loads(workload), dtype, int(steps)


# ---- from outside --------------------------------------------------------------------------------


class Process:
    """A contender's process, stopped while it is not asked; `ready` is its first answer.

    Raises:
      SystemExit: it ends before it answers.
    """

    def __init__(self, name, args, env):
        pipe = subprocess.PIPE
        self.name = name
        self.process = subprocess.Popen(args, stdin=pipe, stdout=pipe, text=True, env=env)
        self.ready = self.read()
        self.process.send_signal(signal.SIGSTOP)

    def read(self):
        for line in self.process.stdout:
            if line.startswith("ANSWER "):
                return json.loads(line.removeprefix("ANSWER "))
        raise SystemExit(f"The process of '{self.name}' ended; its error is above.")

    def time(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        found = self.read()
        self.process.send_signal(signal.SIGSTOP)
        return found

    def close(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.close()
        self.process.wait()


class Worker(Process):
    """A process that runs `script --work name workload dtype steps`, which calls `work`.

    The workload is a dict with its `device`; it goes as JSON. `allocator` is "stock" (every
    contender as it comes) or "same" (the peers get ours, see mmjax/process/runtime.py).
    """

    def __init__(
        self, name, workload, dtype, steps, allocator, script, peers=VENV / "bin" / "python"
    ):
        env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": workload["device"]}
        env["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # the compile counts in `peak`
        env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the others need room on the card
        if name != "ours" and allocator == "stock":
            env["MMJAX_STOCK_ALLOCATOR"] = "1"
        python = sys.executable if name == "ours" else str(peers)
        args = [python, str(script), "--work", name, json.dumps(workload), dtype, str(steps)]
        super().__init__(name, args, env)


def rounds_of(workers, rounds):
    """Every worker once a round, in an order that turns: [{name: answer}, ...]."""
    for worker in workers:
        worker.time()  # the first after waiting is not typical
    results = []
    for r in range(rounds):
        turn = workers[r % len(workers) :] + workers[: r % len(workers)]
        results.append({worker.name: worker.time() for worker in turn})
    return results


def compare(script, amount, unit):
    """`measure` for `measure_each` of an inference benchmark: prints rates, memory and ratios.

    Args:
      amount: workload's name -> how many of `unit` a step makes.
    """

    def measure(workload, dtype, allocator, args):
        results = []
        for _ in range(args.processes):
            workers = [
                Worker(c, {"name": workload, "device": "cpu"}, dtype, 1, allocator, script)
                for c in args.contenders
            ]
            results += rounds_of(workers, args.rounds)
            for worker in workers:
                worker.close()
        print(f"\n{workload} {dtype}, allocator {allocator}")
        for name in args.contenders:
            wall, rss, peak = (
                statistics.median(r[name][key] for r in results) for key in ("wall", "rss", "peak")
            )
            line = f"  {name:13s} {amount(workload) / wall:7.2f} {unit}/s  {1e3 * wall:7.0f} ms"
            line += f"  RSS {rss:5.0f} MiB, with the compile {peak:5.0f}"
            if name != "ours" and "ours" in args.contenders:
                each = [r[name]["wall"] / r["ours"]["wall"] for r in results]
                line += f"  ours is {statistics.median(each):.2f}x as fast"
                line += f" ({min(each):.2f} to {max(each):.2f})"
                cpu = statistics.median(r[name]["cpu"] / r["ours"]["cpu"] for r in results)
                line += f", CPU time {cpu:.2f}x"
            print(line, flush=True)

    return measure


def against_products(title, steps, rounds):
    """Time steps in turn, and print a table of each against the sum of its products.

    Args:
      steps: name -> (step, FLOPs of its products); "clip" is the one whose rate counts as 1.
    """
    seconds = {name: [] for name in steps}
    for turn in range(rounds + 2):  # two to warm up
        for name, (step, _) in steps.items():
            start = time.perf_counter()
            step()
            if turn > 1:
                seconds[name].append(time.perf_counter() - start)
    print(f"\n| {title} | GFLOP a step | ms | GFLOP/s | against its products |")
    print("|---|---|---|---|---|")
    clip = steps["clip"][1]
    for name, (_, work) in steps.items():
        ratios = [s / c * clip / work for s, c in zip(seconds[name], seconds["clip"], strict=True)]
        middle = statistics.median(seconds[name])
        print(
            f"| {name} | {work / 1e9:.1f} | {1e3 * middle:.0f} | {work / middle / 1e9:.0f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |",
            flush=True,
        )


# ---- the command line ----------------------------------------------------------------------------


def set_up_peers():
    """The peers' virtual environment, made once."""
    done = VENV / "done"
    if done.exists():
        return
    print(f"Setting up the peers in {VENV.relative_to(ROOT)} ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    pip = [VENV / "bin" / "python", "-m", "pip", "install", "-q"]
    subprocess.run([*pip, TORCH], check=True)
    lines = (Path(__file__).parent / "peers.txt").read_text().splitlines()
    peers = [line for line in lines if not line.startswith("#")]
    alone = [p for p in peers if p.startswith(("open_clip_torch", "timm", "torchaudio"))]
    subprocess.run([*pip, *(p for p in peers if p not in alone)], check=True)
    subprocess.run([*pip, "--no-deps", *alone], check=True)
    done.touch()


def options(description, contenders, workloads, usual=None, dtypes=("float32", "bfloat16")):
    """The command line of a benchmark of contenders; `usual` of them, and `dtypes`, by default."""
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--contenders", nargs="+", choices=contenders, default=usual or list(contenders))
    add("--workloads", nargs="+", choices=workloads, default=list(workloads))
    add("--dtypes", nargs="+", choices=sorted({"float32", "bfloat16", *dtypes}), default=dtypes)
    add("--allocators", nargs="+", choices=("stock", "same"), default=("stock", "same"))
    add("--rounds", type=int, default=5, help="in each set of processes")
    add("--processes", type=int, default=3, help="sets of fresh processes")
    return parser


def measure_each(args, measure):
    """`measure(workload, dtype, allocator, args)` of all that the command line asks for."""
    if set(args.contenders) - {"ours"}:
        set_up_peers()
    for allocator in args.allocators:
        for workload in args.workloads:
            for dtype in args.dtypes:
                measure(workload, dtype, allocator, args)
