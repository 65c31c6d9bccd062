"""Rehearse a launch on this machine: several processes, a lost one, the restart, the report.

    python -m experiments.launch.rehearse CONFIG WORKDIR --processes=4 [--config.KEY=VALUE ...]

Starts host.sh as jobset.yaml does, once for each process, on CPU devices, and goes through what a
run on a pod goes through: preflight, start, the first checkpoint, the kill of one process a few
steps later, the end of all others, a restart of all, the resume from that checkpoint, the end of
training, the final evaluation and the report. Prints a line with its seconds for each, and the
goodput of the whole; exits with 1 at the first that is not as it must be, with the end of the logs.

The config must be one that this machine trains in minutes, with two checkpoints or more: give a
small model by --config.KEY=VALUE. The workdir must be new: a folder, or gs://... or s3://...; the
bucket is that of an emulator (extra [dev]) if it is called "bucket" and --emulator is given. What
each process said is in --logs.
"""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mmjax import storage
from mmjax.run import goodput
from mmjax.storage import mirror
from mmjax.workdir import jsonl
from mmjax.workdir.metrics import read_metrics

HOST = Path(__file__).with_name("host.sh").resolve()
HELPERS = HOST.parents[2] / "tests" / "helpers"


class Rehearsal:
    """Starts the processes of a run, and waits for what must happen.

    Args:
      arguments: of host.sh: config, workdir, overrides.
      logs: folder for what the processes print.
      patience: seconds for each stage.
    """

    def __init__(self, arguments: list[str], logs: Path, processes: int, patience: float):
        self.workdir, self._arguments = arguments[1], arguments
        self._count, self._patience, self._logs = processes, patience, logs
        logs.mkdir(parents=True, exist_ok=True)
        self.processes: list[subprocess.Popen] = []
        self._starts, self._began = 0, time.monotonic()

    def start(self) -> None:
        """Start every process once."""
        self._starts += 1
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        for index in range(self._count):
            variables = {
                "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
                "JAX_NUM_PROCESSES": str(self._count),
                "JAX_PROCESS_ID": str(index),
                "JAX_PLATFORMS": "cpu",
                "PYTHON": os.environ.get("PYTHON", sys.executable),
            }
            with open(self._log(index), "wb") as log:
                process = subprocess.Popen(
                    [str(HOST), *self._arguments],
                    env=os.environ | variables,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            self.processes.append(process)

    def _log(self, index: int) -> Path:
        return self._logs / f"start{self._starts}-process{index}.log"

    def said(self, index: int = 0) -> str:
        """What a process of the newest start has printed."""
        return self._log(index).read_text(errors="replace")

    def until(self, what: str, happened: Callable[[], bool], pause: float = 0.02) -> None:
        """Wait for something, and print how long it took; no process may fail meanwhile.

        Args:
          pause: seconds between looks.
        """
        deadline = time.monotonic() + self._patience
        while not happened():
            codes = [p.poll() for p in self.processes]
            ended = [i for i, code in enumerate(codes) if code or (code == 0 and i == 0)]
            if ended and not happened():
                self.fail(f"process {ended[0]} ended before: {what}", ended[0])
            if time.monotonic() > deadline:
                self.fail(f"not within {self._patience:.0f} s: {what}")
            time.sleep(pause)
        self.ok(what)

    def ok(self, what: str) -> None:
        """Print a stage that is complete."""
        now = time.monotonic()
        print(f"ok  {now - self._began:6.1f} s  {what}", flush=True)
        self._began = now

    def check(self, what: str, holds: bool) -> None:
        """A stage that is a fact."""
        if not holds:
            self.fail(f"not so: {what}")
        self.ok(what)

    def fail(self, what: str, index: int = 0) -> None:
        """End everything, with the end of a process's log."""
        self.close()
        tail = "\n".join(self.said(index).splitlines()[-15:])
        print(f"FAILED  {what}; {self._log(index)} ends with:\n{tail}")
        raise SystemExit(1)

    def ends(self) -> list[int]:
        """Wait for all processes; their exit codes."""
        deadline = time.monotonic() + self._patience
        while any(p.poll() is None for p in self.processes):
            if time.monotonic() > deadline:
                self.fail(f"processes are still there after {self._patience:.0f} s")
            time.sleep(0.02)
        codes = [p.returncode for p in self.processes]
        self.processes = []
        return codes

    def close(self) -> None:
        """Kill what is left."""
        for process in self.processes:
            process.kill()

    def saved(self) -> list[int]:
        """The steps of complete checkpoints."""
        names = storage.listing(storage.join(self.workdir, mirror.CHECKPOINTS))
        whole = (re.search(rf"/(\d+)/{mirror.WHOLE}$", name) for name in names)
        return sorted(int(found[1]) for found in whole if found)

    def shown(self) -> int:
        """The last step that process 0 has shown."""
        return max(map(int, re.findall(r"step (\d+)/", self.said())), default=0)


def rehearse(run: Rehearsal, victim: int) -> None:
    """Go through all stages; `victim` is the process that is killed."""
    if storage.exists(storage.join(run.workdir, "run.json")):
        raise SystemExit(f"{run.workdir} has a run already: give a new workdir.")
    run.start()
    run.until("preflight: all is ready", lambda: "ok  all: is ready" in run.said())
    run.until("started from step 0", lambda: "starts from step 0" in run.said())
    run.until("the first step", lambda: run.shown() > 0)
    # Each look lists the bucket: more of them would keep an emulator from serving the run.
    pause = 1.0 if storage.is_url(run.workdir) else 0.02
    run.until("the first checkpoint", lambda: bool(run.saved()), pause)
    first = run.saved()[0]
    run.until("a later step", lambda: run.shown() > first)
    run.processes[victim].send_signal(signal.SIGKILL)
    codes = run.ends()
    run.check(
        f"process {victim} was killed, and all ended (codes {', '.join(map(str, codes))})",
        codes[victim] == -signal.SIGKILL and 0 not in codes and 2 not in codes,
    )
    saved = run.saved()[-1]
    run.start()
    run.until(
        f"restarted, and resumed at step {saved}", lambda: f"resumed at step {saved} " in run.said()
    )
    codes = run.ends()
    run.check("trained to the end, and evaluated", codes == [0] * len(codes))
    with mirror.opened(run.workdir) as folder:
        steps = [row["step"] for row in read_metrics(folder) if "train/loss" in row]
        rows = jsonl.read(folder / goodput.FILE)
        has_report = (folder / "report.html").exists()
    run.check("every step is logged once, in order", steps == sorted(set(steps)) != [])
    run.check("the report is there", has_report)
    spent, wall = goodput.account(rows), rows[-1]["time"] - rows[0]["began"]
    run.check(
        f"goodput adds up to the {wall:.0f} s of wall time, {spent['down']:.0f} s of them down",
        abs(sum(spent.values()) - wall) < 0.01 and spent["down"] > 0,
    )
    print(f"goodput: {goodput.sentence(spent)}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("workdir")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--victim", type=int, help="the process that is killed; else the last")
    parser.add_argument("--logs", type=Path, default=Path("runs/rehearsal.logs"))
    parser.add_argument("--emulator", action="store_true", help="be the bucket, gs:// or s3://")
    parser.add_argument("--patience", type=float, default=600, help="seconds for each stage")
    args, overrides = parser.parse_known_args()
    if args.processes < 2:
        parser.error(f"--processes is {args.processes}: use 2 or more.")
    victim = args.processes - 1 if args.victim is None else args.victim
    if not 0 <= victim < args.processes:
        parser.error(f"--victim is {victim}: use 0 to {args.processes - 1}.")
    if args.emulator:
        sys.path.insert(0, str(HELPERS))
        import buckets

        start = {"gs": buckets.gs, "s3": buckets.s3}.get(args.workdir.partition("://")[0])
        if start is None:
            parser.error("--emulator needs a workdir gs://bucket/NAME or s3://bucket/NAME.")
        args.logs.mkdir(parents=True, exist_ok=True)
        sys.stderr = open(args.logs / "emulator.log", "w")  # noqa: SIM115  (it reports lost clients)
        start()
    words = [args.config, args.workdir, *overrides]
    run = Rehearsal(words, args.logs, args.processes, args.patience)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which ends the processes, too
    try:
        rehearse(run, victim)
    finally:
        run.close()


if __name__ == "__main__":
    main()
