r"""Run a grid of settings and seeds as a queue, then write its table, plot and commands.

    python -m experiments.ablate --grid=experiments/fusion/grid.py --out=runs/fusion \
        --report=experiments/fusion

The queue's state is the folder of runs itself: kill it at any time and start it again, and it
resumes, also within a run. The same command on several machines that share the folder shares the
runs out. A run is named by the settings that differ from the grid's config file, or by its arm.
`--dry` prints the commands; `--table` writes the report of the finished runs.

A grid is a Python file with `get_grid() -> dict`:
    config: the config file; fixed: {key: value} that every run has;
    axes: {key: list of values}, of which every combination is a cell; baseline: {key: value}, one
    cell; seeds: list; metrics: {"evaluation/metric": column title}, values in [0, 1].
If the cells are not combinations, instead of axes
    changes: list of {key: value}, each a cell, one at a time; the baseline is the config without
    any of them; or
    arms: {title: {key: value}}, each a cell; baseline: one of the titles.
A cell without prospects need not run to the end:
    give_up: {"metric": "evaluation/metric", "seeds": N, "margin": M}: once a cell has been worse
    than the baseline by more than M with each of the first N seeds, its other seeds are not run.
"""

import argparse
import dataclasses
import hashlib
import importlib.util
import itertools
import json
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.ablation_queue import work
from experiments.ablation_table import write_report
from mmjax import config as configs
from mmjax.config import ConfigDict
from mmjax.models.systems import make_system
from mmjax.optim.optimizer import Settings
from mmjax.workdir import resume_config

TRAIN = ("python", "-m", "mmjax.train")
LONGEST_NAME = 100  # characters of a run's folder; a longer one is cut, with a hash of all of it
KEYS = {"config", "fixed", "seeds", "metrics", "command", "give_up"}
KINDS = {"axes": {"baseline"}, "arms": {"baseline"}, "changes": set()}  # and what else they need
BASE = "base"  # the title of the config without changes
GIVE_UP = {"metric", "seeds", "margin"}


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


def function_of(path: str, name: str, about: str) -> Callable[..., Any]:
    """A function of a grid's file.

    Args:
      about: for the error, its arguments and what it gives.

    Raises:
      ValueError: no such file or function.
    """
    if not Path(path).is_file():
        raise ValueError(f"There is no grid file '{path}'.")
    module_spec = importlib.util.spec_from_file_location("config_grid", path)
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ValueError(f"{path} is not Python: {error}.") from None
    if not hasattr(module, name):
        raise ValueError(f"{path} defines no function {name}{about}.")
    return getattr(module, name)


def load_grid(path: str) -> dict[str, Any]:
    """The dict of a grid's file.

    Raises:
      ValueError: no such file or function, an unknown, a missing or an empty key, or a baseline
        that is not a cell.
    """
    make = function_of(path, "get_grid", "()")
    grid = {"fixed": {}, "command": TRAIN, "give_up": None, **make()}
    kind = next((kind for kind in KINDS if kind in grid), "axes")
    keys = KEYS | {kind} | KINDS[kind]
    if set(grid) != keys:
        wrong = sorted(set(grid) ^ keys)
        raise ValueError(
            f"The grid of {path} has unknown or missing keys {wrong}: its keys are {sorted(keys)}."
        )
    empty = next((key for key in (kind, "seeds", "metrics") if not grid[key]), None)
    if empty is not None:
        raise ValueError(f"The grid of {path} has no {empty}: give it at least one.")
    rule = grid["give_up"]
    if rule is not None and (
        set(rule) != GIVE_UP or rule["metric"] not in grid["metrics"] or rule["seeds"] < 1
    ):
        raise ValueError(
            f"give_up of {path} is {rule}: give it {', '.join(sorted(GIVE_UP))}, the metric one of "
            f"the grid's ({', '.join(grid['metrics'])}) and at least one seed."
        )
    baseline_of(grid, path)
    return grid


def baseline_of(grid: Mapping[str, Any], path: str = "the grid") -> Cell:
    """The cell that the others are compared with.

    Raises:
      ValueError: the grid's baseline is no cell.
    """
    if "changes" in grid:
        return cells(grid)[0]
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
    """The arms; or the base and each change of it; or every combination of the axes' values, the
    last axis changing fastest."""
    if "changes" in grid:
        keys = {key for settings in grid["changes"] for key in settings}
        return [Cell(BASE), *(_combination(settings, keys) for settings in grid["changes"])]
    if "arms" in grid:
        return [Cell(title, settings) for title, settings in grid["arms"].items()]
    keys = list(grid["axes"])
    combinations = itertools.product(*grid["axes"].values())
    return [_combination(dict(zip(keys, values)), keys) for values in combinations]


def _combination(settings: Mapping[str, Any], keys: Collection[str]) -> Cell:
    """Its title is short, for tables: of each setting its `_short` key and its value."""
    title = ", ".join(f"{_short(key, keys)} {value}" for key, value in settings.items())
    return Cell(title, settings)


def _short(key: str, keys: Collection[str]) -> str:
    """The last word of a key, if no other one of the grid's keys ends in it."""
    last = key.split(".")[-1]
    return last if {other for other in keys if other.split(".")[-1] == last} <= {key} else key


def make_runs(grid: Mapping[str, Any], out: Path) -> list[Run]:
    """Every cell with every seed; a whole grid of one seed comes before the next seed.

    Raises:
      ValueError: a setting that the config does not have, or two cells or seeds that differ in
        nothing, or in nothing that a folder's name tells.
    """
    base = configs.load(grid["config"])
    found = []
    for seed, cell in itertools.product(grid["seeds"], cells(grid)):
        settings = {**grid["fixed"], **cell.settings, "seed": seed}
        overrides = tuple(f"--config.{key}={value}" for key, value in settings.items())
        config = configs.load(grid["config"], overrides)
        make_system(config)  # refuses settings that it does not have, before any run starts
        configs.check_kwargs(Settings, config.optim, "config.optim")
        changed = {"arm": (None, cell.title), "seed": (None, seed)}
        if "arms" not in grid:
            changed = resume_config.diff(base, config)
        found.append((cell, seed, config, overrides, changed))
    keys = {key for *_, changed in found for key in changed}
    runs = []
    for cell, seed, config, overrides, changed in found:
        workdir = out / run_name(changed, keys)
        command = (*grid["command"], f"--config={grid['config']}", f"--workdir={workdir}")
        runs.append(Run(cell, seed, workdir, config, (*command, *overrides)))
    _check_differ(runs)
    return runs


def _check_differ(runs: Sequence[Run]) -> None:
    """Raise ValueError for two runs of the same config, or in the same folder."""
    seen: dict[str, Run] = {}
    folders: dict[Path, Run] = {}
    for run in runs:
        other = seen.setdefault(configs.to_json(run.config), run)
        if other.cell.title != run.cell.title:
            raise ValueError(
                f"The cells '{other.cell.title}' and '{run.cell.title}' of the grid differ in "
                "nothing: their configs are the same; change one, or drop it."
            )
        if other is not run:
            raise ValueError(
                f"Two runs of the grid have the same config, {run.workdir.name}: drop one."
            )
        other = folders.setdefault(run.workdir, run)
        if other is not run:
            raise ValueError(
                f"The cells '{other.cell.title}' and '{run.cell.title}' of the grid have the same "
                f"folder, {run.workdir.name}: give them other titles as arms."
            )


def run_name(changed: Mapping[str, tuple[Any, Any]], keys: Collection[str]) -> str:
    """A folder's name from `diff`: "kind=late,seed=1"; "unchanged" for no difference.

    Args:
      keys: those that differ in any run of the grid.
    """
    parts = []
    for key, (_, new) in changed.items():
        value = "".join(c if c.isalnum() or c in "._-+" else "_" for c in str(new))
        parts.append(f"{_short(key, keys)}={value}")
    name = ",".join(parts) or "unchanged"
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]  # a file system takes 255 bytes
    return f"{name[:LONGEST_NAME]},{digest}"


class Hopeless:
    """Which cells a grid gives up: see `give_up` above.

    A run waits until the first seeds are done, so that the cells that are given up do not depend on
    which machine runs what, or when.
    """

    def __init__(self, runs: Sequence[Run], baseline: Cell, rule: Mapping[str, Any] | None):
        self._runs, self._baseline, self._rule = runs, baseline, rule

    def __call__(self, run: Run, failed: Sequence[Run] = ()) -> bool | None:
        """Whether the run need not be started; None: that is not known yet.

        Args:
          failed: runs that will have no results.
        """
        if self._rule is None or run.cell == self._baseline:
            return False
        seeds = list(dict.fromkeys(other.seed for other in self._runs))[: self._rule["seeds"]]
        if run.seed in seeds:
            return False
        both = [r for r in self._runs if r.seed in seeds and r.cell in (run.cell, self._baseline)]
        found = {(r.cell, r.seed): r.results() for r in both}
        pairs = [(found[run.cell, seed], found[self._baseline, seed]) for seed in seeds]
        metric, margin = self._rule["metric"], self._rule["margin"]
        if any(None not in pair and pair[0][metric] - pair[1][metric] >= -margin for pair in pairs):
            return False
        missing = [r for r in both if found[r.cell, r.seed] is None]
        if missing:
            return False if any(r in failed for r in missing) else None
        return True

    def note(self) -> str:
        """What the report says of it: the rule, and the cells that were given up."""
        if self._rule is None:
            return ""
        given_up = dict.fromkeys(run.cell.title for run in self._runs if self(run))
        rule = self._rule
        return (
            f"Given up, as each of the first {rule['seeds']} seeds was worse than the baseline's "
            f"by more than {100 * rule['margin']:g} points of {rule['metric']}, and not tested: "
            f"{', '.join(given_up) or 'none'}."
        )


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
    baseline = baseline_of(grid)
    hopeless = Hopeless(runs, baseline, grid["give_up"])
    failed = [] if args.table else work(runs, max(1, args.jobs), Path(args.out), hopeless)
    report = Path(args.report or args.out)
    found = list(gather(runs, list(grid["metrics"])))
    note = hopeless.note()
    print(write_report(report, found, cells(grid), baseline, grid["metrics"], commands, note))
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
