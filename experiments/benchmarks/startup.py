"""Start-up to the first step of the default config: where the time goes, compile cold and cached.

    python experiments/benchmarks/startup.py

Runs the real command (configs/clip_emoji.py, evaluators off) on an empty compile cache, then again
on the filled one, and ends it at its first step; the data set is built beforehand. CPU seconds of
all threads are given besides wall time, since other work on the machine affects them less. Medians
over the rounds, in which both kinds take turns.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMPORTS = "imports"
READY = "source, tokenizer, model, new state"
FIRST = "first batch, train step compiled, first step"


class Clock:
    """Wall and CPU seconds of a process since its start."""

    def __init__(self, process):
        self.start, self.stat = time.perf_counter(), Path(f"/proc/{process.pid}/stat")

    def read(self):
        fields = self.stat.read_text().rpartition(")")[2].split()
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter() - self.start, cpu


def start_up(cache, root):
    """{phase: (wall, CPU seconds)} of one start, and the seconds that XLA said it compiled."""
    workdir = tempfile.mkdtemp(dir=root)
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache), "PYTHONUNBUFFERED": "1"}
    env |= {"JAX_LOG_COMPILES": "1", "JAX_PLATFORMS": "cpu"}
    train = [sys.executable, "-m", "mmjax.train", "--config=configs/clip_emoji.py"]
    train += [f"--workdir={workdir}", "--config.evals={}", "--config.validation=()"]
    train += ["--config.log_every=1"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(train, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)
    clock, log = Clock(process), []
    reader = threading.Thread(target=lambda: log.extend(process.stderr), daemon=True)
    reader.start()
    for line in process.stdout:
        if line.startswith("starts from step 0"):
            break
    else:
        sys.exit("".join(log))
    ready, metrics = clock.read(), Path(workdir) / "metrics.jsonl"
    while not (metrics.exists() and "train/loss" in metrics.read_text()):
        if process.poll() is not None:
            sys.exit("".join(log))
        time.sleep(0.01)
    first = clock.read()
    process.kill()
    process.wait()
    reader.join()
    compiled = re.findall(r"Finished XLA compilation of (\S+) in ([\d.]+) sec", "".join(log))
    return {READY: ready, FIRST: first}, compiled


def imports():
    """(wall, CPU seconds) of a process that imports what the command imports."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", "import mmjax.train"], cwd=ROOT, check=True)
    after = os.times()
    cpu = after.children_user + after.children_system
    return time.perf_counter() - start, cpu - before.children_user - before.children_system


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    found = {"cold": [], "cached": []}
    compiled = {"cold": [], "cached": []}
    with tempfile.TemporaryDirectory(prefix="mmjax-startup-") as root:
        for round in range(args.rounds):
            cache = Path(root) / f"cache-{round}"
            for kind in found:
                loaded = imports()
                marks, programs = start_up(cache, root)
                steps = [(0.0, 0.0), loaded, marks[READY], marks[FIRST]]
                spent = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(steps, steps[1:])]
                found[kind].append([*spent, marks[FIRST]])
                compiled[kind].append(sum(float(seconds) for _, seconds in programs))
                slowest = sorted(programs, key=lambda p: -float(p[1]))[:4]
                print(kind, found[kind][-1], slowest, file=sys.stderr, flush=True)
    print(f"{args.rounds} rounds, load {os.getloadavg()[0]:.0f}\n")
    print("| | cold: wall s | CPU s | cached: wall s | CPU s |\n|---|---|---|---|---|")
    for i, phase in enumerate((IMPORTS, READY, FIRST, "**to the first step**")):
        cells = [
            f"{statistics.median(run[i][j] for run in found[kind]):.1f}"
            for kind in found
            for j in range(2)
        ]
        print(f"| {phase} | {' | '.join(cells)} |")
    cells = [f"{statistics.median(compiled[kind]):.1f} | –" for kind in compiled]
    print(f"| of it, compiling or reading the cache | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
