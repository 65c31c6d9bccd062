"""The queue of an ablation: runs as processes, on one machine or on several that share a folder.

A machine claims a run before it starts it, by a lock in the shared folder that it loses however it
ends; the run itself resumes from its checkpoints wherever it is claimed next.
"""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.progress import Task

from mmjax.process.progress import Line, duration
from mmjax.workdir import lock

CLAIMS = ".claims"  # a folder beside the runs, with a lock for each
POLL_SECONDS = 0.1
ELSEWHERE_SECONDS = 5.0  # between looks at runs that other machines have
Hopeless = Callable[[Any, Sequence[Any]], bool | None]


class _Active:
    """A run of this machine."""

    def __init__(self, run: Any, claim: contextlib.ExitStack):
        self.run, self.claim = run, claim
        self.process, self.began = _start(run), time.monotonic()


def work(
    runs: Sequence[Any],
    jobs: int,
    out: Path,
    hopeless: Hopeless = lambda run, failed: False,
) -> list[Any]:
    """Run what is not done, `jobs` runs at a time, until all are; returns those that failed here.

    On SIGTERM or Ctrl-C the runs get SIGTERM and save, and this process ends.

    Args:
      runs: see `ablate.Run`; out: the folder that they are in.
      hopeless: whether a run need not be started, given the runs that have failed; None: wait.
    """
    waiting = [run for run in runs if run.results() is None]
    queue = Queue(len(runs), len(runs) - len(waiting), jobs)
    active: list[_Active] = []
    failed: list[Any] = []
    look = 0.0  # when to try again what other machines had
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        while waiting or active:
            if len(active) < jobs and time.monotonic() >= look:
                started = _start_next(waiting, failed, out, hopeless, queue)
                if started is not None:
                    active.append(started)
                    continue
                look = time.monotonic() + ELSEWHERE_SECONDS
                if waiting and not active:
                    queue.elsewhere(len(waiting))
            time.sleep(POLL_SECONDS)
            for one in [one for one in active if one.process.poll() is not None]:
                active.remove(one)
                one.claim.close()
                done = one.process.returncode == 0 and one.run.results() is not None
                if not done:
                    failed.append(one.run)
                queue.ended(one.run, time.monotonic() - one.began, done)
                look = 0.0
            queue.draw(one.run for one in active)
    finally:
        queue.close()
        for one in active:
            one.process.terminate()
        for one in active:
            one.process.wait()
            one.claim.close()
    return failed


def _start_next(
    waiting: list[Any], failed: list[Any], out: Path, hopeless: Hopeless, queue: "Queue"
) -> _Active | None:
    """Claim and start the first run that no other machine has, and remove it from `waiting`; those
    that are done by now, or hopeless, are removed too. None: there is none at present."""
    for run in list(waiting):
        if hopeless(run, failed) is None:
            continue
        claim = contextlib.ExitStack()
        try:
            claim.enter_context(lock.held(out / CLAIMS / run.workdir.name, "--out"))
        except lock.InUseError:
            continue
        if run.results() is not None:  # since it was put on the list, by another machine
            queue.skipped(run, "is done")
        elif hopeless(run, failed):
            queue.skipped(run, "is given up, see the report")
        else:
            waiting.remove(run)
            return _Active(run, claim)
        waiting.remove(run)
        claim.close()
    return None


def _start(run: Any) -> subprocess.Popen:
    command = list(run.command)
    if command[0] == "python":
        command[0] = sys.executable
    run.workdir.mkdir(parents=True, exist_ok=True)
    with open(run.workdir / "log.txt", "ab") as log:
        # A session of its own: Ctrl-C reaches only this process, which then ends the run.
        return subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


class Queue:
    """A line for each run that ends, and on a terminal a live one with the active runs."""

    def __init__(self, total: int, done: int, jobs: int):
        self._total, self._done, self._jobs = total, done, jobs
        self._seconds: list[float] = []
        self._active: list[str] = []
        self._elsewhere = 0
        print(f"{total} runs, {done} of them done", file=sys.stderr, flush=True)
        self._line = Line(self._facts, total, done)

    def _facts(self, task: Task) -> list[str]:
        return [f"{self._done}/{self._total}", f"ETA {self._left()}", " | ".join(self._active)]

    def _left(self) -> str:
        if not self._seconds:
            return "?"
        mean = sum(self._seconds) / len(self._seconds)
        return duration(mean * (self._total - self._done) / self._jobs)

    def ended(self, run: Any, seconds: float, done: bool) -> None:
        """Print how a run ended."""
        self._done += 1
        self._seconds.append(seconds)
        how = f"in {seconds:.0f} s" if done else f"FAILED, see {run.workdir / 'log.txt'}"
        self._print(f"{run.workdir.name}  {how}  ETA {self._left()}")

    def skipped(self, run: Any, why: str) -> None:
        """Print that a run was not started here."""
        self._done += 1
        self._print(f"{run.workdir.name}  {why}")

    def elsewhere(self, count: int) -> None:
        """Print how many runs other machines have, once for each number."""
        if count != self._elsewhere:
            self._print(f"{count} of the runs are on other machines: waiting for them")
        self._elsewhere = count

    def _print(self, text: str) -> None:
        print(f"{self._done}/{self._total}  {text}", file=sys.stderr, flush=True)

    def draw(self, active: Iterable[Any]) -> None:
        """Redraw the line with the active runs."""
        self._active = [run.workdir.name for run in active]
        self._line.update(self._done)

    def close(self) -> None:
        """End the line."""
        self._line.stop()
