r"""Run a grid of settings and seeds as a queue, then write its table, plot and commands.

    python -m experiments.ablate --grid=experiments/fusion/grid.py --out=runs/fusion \
        --report=experiments/fusion

The queue's state is the folder of runs itself: kill it at any time and start it again, and it
resumes, also within a run. A run is named by the settings that differ from the grid's config file,
or by its arm. `--dry` prints the commands; `--table` writes the report of the finished runs.

A grid is a Python file with `get_grid() -> dict`:
    config: the config file; fixed: {key: value} that every run has;
    axes: {key: list of values}, of which every combination is a cell; baseline: {key: value}, one
    cell; seeds: list; metrics: {"evaluation/metric": column title}, values in [0, 1].
If the cells are not combinations, instead of axes
    arms: {title: {key: value}}, each a cell; baseline: one of the titles.
"""

import argparse
import dataclasses
import hashlib
import importlib.util
import itertools
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import Task

from experiments.ablation_table import write_report
from mmjax import config as configs
from mmjax.config import ConfigDict
from mmjax.models.systems import make_system
from mmjax.optim.optimizer import Settings
from mmjax.process.progress import Line, duration
from mmjax.workdir import resume_config

TRAIN = ("python", "-m", "mmjax.train")
LONGEST_NAME = 100  # characters of a run's folder; a longer one is cut, with a hash of all of it
KEYS = {"config", "fixed", "baseline", "seeds", "metrics", "command"}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A row of the table: a title, and settings as in the grid file."""

    title: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)


@dataclasses.dataclass(frozen=True)
class Run:
    """A cell with one seed: its folder, resolved config and exact command."""

    cell: Cell
    seed: int
    workdir: Path
    config: ConfigDict = dataclasses.field(repr=False, hash=False)
    command: tuple[str, ...]

    def results(self) -> dict[str, float] | None:
        """The run's results; None before its end.

        Raises:
          ValueError: the folder holds a run of another config.
        """
        path = self.workdir / "run.json"
        manifest = json.loads(path.read_text()) if path.exists() else {}
        if "config" in manifest:
            there = configs.from_json(json.dumps(manifest["config"]))
            changed = resume_config.diff(there, configs.from_json(configs.to_json(self.config)))
            if changed:
                key, (old, new) = next(iter(changed.items()))
                raise ValueError(
                    f"{self.workdir} holds a run with {key}={old!r}, and the grid now asks for "
                    f"{new!r}: delete that folder, or give another --out."
                )
        return manifest.get("results", {}).get("values")


def load_grid(path: str) -> dict[str, Any]:
    """The dict of a grid's file.

    Raises:
      ValueError: no such file or function, an unknown or a missing key, or a baseline that is not
        a cell.
    """
    if not Path(path).is_file():
        raise ValueError(f"There is no grid file '{path}'.")
    module_spec = importlib.util.spec_from_file_location("config_grid", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not hasattr(module, "get_grid"):
        raise ValueError(f"{path} defines no function get_grid().")
    grid = {"fixed": {}, "command": TRAIN, **module.get_grid()}
    keys = KEYS | {"arms" if "arms" in grid else "axes"}
    if set(grid) != keys:
        wrong = sorted(set(grid) ^ keys)
        raise ValueError(
            f"The grid of {path} has unknown or missing keys {wrong}: its keys are {sorted(keys)}."
        )
    baseline_of(grid, path)
    return grid


def baseline_of(grid: Mapping[str, Any], path: str = "the grid") -> Cell:
    """The cell that the others are compared with.

    Raises:
      ValueError: the grid's baseline is no cell.
    """
    baseline = grid["baseline"]
    for cell in cells(grid):
        if baseline == (cell.title if "arms" in grid else cell.settings):
            return cell
    if "arms" in grid:
        raise ValueError(
            f"The baseline '{baseline}' of {path} is none of its arms: {', '.join(grid['arms'])}."
        )
    raise ValueError(
        f"The baseline {baseline} of {path} is no cell of its axes: give each of "
        f"{', '.join(grid['axes'])} one of its values."
    )


def cells(grid: Mapping[str, Any]) -> list[Cell]:
    """The arms; or every combination of the axes' values, the last axis changing fastest."""
    if "arms" in grid:
        return [Cell(title, settings) for title, settings in grid["arms"].items()]
    keys = list(grid["axes"])
    combinations = itertools.product(*grid["axes"].values())
    return [_combination(dict(zip(keys, values))) for values in combinations]


def _combination(settings: Mapping[str, Any]) -> Cell:
    """Its title is short, for tables: the last word of each key, and its value."""
    title = ", ".join(f"{key.split('.')[-1]} {value}" for key, value in settings.items())
    return Cell(title, settings)


def make_runs(grid: Mapping[str, Any], out: Path) -> list[Run]:
    """Every cell with every seed; a whole grid of one seed comes before the next seed.

    Raises:
      ValueError: a setting that the config does not have, or two runs of the same config.
    """
    base = configs.load(grid["config"])
    runs = []
    for seed, cell in itertools.product(grid["seeds"], cells(grid)):
        settings = {**grid["fixed"], **cell.settings, "seed": seed}
        overrides = tuple(f"--config.{key}={value}" for key, value in settings.items())
        config = configs.load(grid["config"], overrides)
        make_system(config)  # refuses settings that it does not have, before any run starts
        configs.check_kwargs(Settings, config.optim, "config.optim")
        if "arms" in grid:
            workdir = out / run_name({"arm": (None, cell.title), "seed": (None, seed)})
        else:
            workdir = out / run_name(resume_config.diff(base, config))
        command = (*grid["command"], f"--config={grid['config']}", f"--workdir={workdir}")
        runs.append(Run(cell, seed, workdir, config, (*command, *overrides)))
    names = [run.workdir for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"Two runs of the grid have the same config, {name.name}: drop one.")
    return runs


def run_name(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """A folder's name from `config.diff`: "kind=late,seed=1"; "unchanged" for no difference."""
    parts = []
    for key, (_, new) in changed.items():
        last = key.split(".")[-1]
        alone = sum(other.split(".")[-1] == last for other in changed) == 1
        value = "".join(c if c.isalnum() or c in "._-+" else "_" for c in str(new))
        parts.append(f"{last if alone else key}={value}")
    name = ",".join(parts) or "unchanged"
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]  # a file system takes 255 bytes
    return f"{name[:LONGEST_NAME]},{digest}"


# ---- the queue


def work(runs: Sequence[Run], jobs: int) -> list[Run]:
    """Run what is not done, `jobs` runs at a time; returns those that failed.

    On SIGTERM or Ctrl-C the runs get SIGTERM and save, and this process ends.
    """
    waiting = [run for run in runs if run.results() is None]
    queue = Queue(len(runs), len(runs) - len(waiting), jobs)
    active: dict[subprocess.Popen, tuple[Run, float]] = {}
    failed: list[Run] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                run = waiting.pop(0)
                active[_start(run)] = run, time.monotonic()
            time.sleep(0.1)
            for process in [p for p in active if p.poll() is not None]:
                run, began = active.pop(process)
                seconds = time.monotonic() - began
                done = process.returncode == 0 and run.results() is not None
                if not done:
                    failed.append(run)
                queue.ended(run, seconds, done)
            queue.draw(run for run, _ in active.values())
    finally:
        queue.close()
        for process in active:
            process.terminate()
        for process in active:
            process.wait()
    return failed


def _start(run: Run) -> subprocess.Popen:
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
        print(f"{total} runs, {done} of them done", file=sys.stderr, flush=True)
        self._line = Line(self._facts, total, done)

    def _facts(self, task: Task) -> list[str]:
        return [f"{self._done}/{self._total}", f"ETA {self._left()}", " | ".join(self._active)]

    def _left(self) -> str:
        if not self._seconds:
            return "?"
        mean = sum(self._seconds) / len(self._seconds)
        return duration(mean * (self._total - self._done) / self._jobs)

    def ended(self, run: Run, seconds: float, done: bool) -> None:
        """Print how a run ended."""
        self._done += 1
        self._seconds.append(seconds)
        how = f"in {seconds:.0f} s" if done else f"FAILED, see {run.workdir / 'log.txt'}"
        line = f"{self._done}/{self._total}  {run.workdir.name}  {how}  ETA {self._left()}"
        print(line, file=sys.stderr, flush=True)

    def draw(self, active: Iterable[Run]) -> None:
        """Redraw the line with the active runs."""
        self._active = [run.workdir.name for run in active]
        self._line.update(self._done)

    def close(self) -> None:
        """End the line."""
        self._line.stop()


# ---- the command


def gather(runs: Sequence[Run], metrics: Sequence[str]) -> Iterator[tuple[Cell, int, str, float]]:
    """(cell, seed, metric, value) of every run that is done.

    Raises:
      ValueError: a metric that a run did not give.
    """
    for run in runs:
        values = run.results()
        for metric in metrics if values is not None else ():
            if metric not in values:
                raise ValueError(
                    f"The grid's metric '{metric}' is none of {run.workdir}; it has "
                    f"{', '.join(sorted(values))}."
                )
            yield run.cell, run.seed, metric, values[metric]


def main() -> int:
    """The command; exits with 1 if a run failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grid", required=True, help="the grid's Python file")
    parser.add_argument("--out", required=True, help="folder of the runs")
    parser.add_argument("--report", help="folder of table.md, plot.png and commands.txt")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--dry", action="store_true", help="print the commands and stop")
    parser.add_argument("--table", action="store_true", help="run nothing; write the report")
    args = parser.parse_args()

    grid = load_grid(args.grid)
    runs = make_runs(grid, Path(args.out))
    commands = [shlex.join(run.command) for run in runs]
    if args.dry:
        print("\n".join(commands))
        return 0
    failed = [] if args.table else work(runs, max(1, args.jobs))
    baseline = baseline_of(grid)
    report = Path(args.report or args.out)
    found = list(gather(runs, list(grid["metrics"])))
    print(write_report(report, found, cells(grid), baseline, grid["metrics"], commands))
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
