"""Compare runs: what differs in their configs, their results with intervals, their curves.

    python -m experiments.compare runs/a runs/b                  # as text
    python -m experiments.compare runs/study --out=comparison    # and as a page, and JSON
    python -m experiments.compare runs/a runs/b --without=probe  # an evaluator left out

A folder without a run stands for the runs in it. Runs that differ in nothing but the seed are one
group; its results are the mean over seeds ± half of the 95 % confidence interval (Student's t).
Differences are from the first group, paired by seed. Runs that were evaluated by different settings
are refused; results of different steps are marked, as they are not comparable.
"""

import argparse
import dataclasses
import html
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.ablation_table import difference, mean_and_interval
from mmjax import config as configs
from mmjax import storage
from mmjax.report.figures import lines
from mmjax.report.markup import card_grid, inline_svg
from mmjax.report.page import write_page
from mmjax.workdir import resume_config
from mmjax.workdir.manifest import read_manifest
from mmjax.workdir.metrics import read_metrics

CURVES = ("train/loss", "eval/")  # beginnings of the names of the scalars that are drawn


@dataclasses.dataclass(frozen=True)
class Run:
    """What a workdir records about a run."""

    workdir: Path
    config: configs.ConfigDict
    results: Mapping[str, Any]  # step, evaluators, values; empty before the end
    rows: Sequence[Mapping[str, float]]  # of metrics.jsonl


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed, by seed."""

    title: str
    runs: Mapping[int, Run]

    def values(self, metric: str) -> dict[int, float]:
        """The result of every seed that has it."""
        found = {seed: run.results.get("values", {}) for seed, run in self.runs.items()}
        return {seed: float(v[metric]) for seed, v in found.items() if metric in v}


def find_runs(folders: Sequence[Path], without: Sequence[str] = ()) -> list[Run]:
    """The runs in the given folders, each a workdir or a folder of workdirs.

    Args:
      without: evaluators whose results are left out.

    Raises:
      ValueError: a folder without runs, a run without a config, or runs that were evaluated by
        different settings.
    """
    found = []
    for folder in folders:
        own = [folder] if (folder / "run.json").exists() else sorted(folder.glob("*/"))
        workdirs = [path for path in own if (path / "run.json").exists()]
        if not workdirs:
            raise ValueError(f"There is no run in '{folder}', nor in the folders in it.")
        for workdir in workdirs:
            manifest = read_manifest(workdir)
            if "config" not in manifest:
                raise ValueError(f"{workdir}/run.json has no config: the run has not begun.")
            config = configs.from_json(json.dumps(manifest["config"]))
            found.append(Run(workdir, config, manifest.get("results", {}), read_metrics(workdir)))
    known = sorted({name for run in found for name in run.results.get("evaluators", {})})
    for name in without:
        if name not in known:
            raise ValueError(f"No run has an evaluator '{name}'; they have {', '.join(known)}.")
    found = [_without(run, without) for run in found]
    _check_same_evaluators(found)
    return found


def _without(run: Run, names: Sequence[str]) -> Run:
    results = {
        **run.results,
        "evaluators": {
            k: v for k, v in run.results.get("evaluators", {}).items() if k not in names
        },
        "values": {
            k: v for k, v in run.results.get("values", {}).items() if k.split("/")[0] not in names
        },
    }
    return dataclasses.replace(run, results=results)


def _check_same_evaluators(runs: Sequence[Run]) -> None:
    """Raise ValueError for an evaluator that ran with other settings, or in another version."""
    first: dict[str, tuple[Path, str]] = {}
    for run in runs:
        for name, fingerprint in run.results["evaluators"].items():
            workdir, other = first.setdefault(name, (run.workdir, fingerprint))
            if fingerprint != other:
                raise ValueError(
                    f"{workdir} and {run.workdir} were evaluated by '{name}' with other settings "
                    f"or versions (fingerprints {other} and {fingerprint}), so their results are "
                    "not comparable: evaluate both again with mmjax.evaluate, or leave it out with "
                    f"--without={name}."
                )


def group(runs: Sequence[Run]) -> list[Group]:
    """Runs with equal configs but for the seed together, in the order of their first.

    Raises:
      ValueError: two runs of one group with the same seed.
    """
    found: dict[str, dict[int, Run]] = {}
    for run in runs:
        config = json.loads(configs.to_json(run.config)) | {"seed": 0, "name": ""}
        seeds = found.setdefault(json.dumps(config, sort_keys=True), {})
        if run.config.seed in seeds:
            raise ValueError(
                f"{seeds[run.config.seed].workdir} and {run.workdir} have the same config and the "
                f"same seed, {run.config.seed}: name one of them."
            )
        seeds[run.config.seed] = run
    titles = [next(iter(seeds.values())).workdir.name for seeds in found.values()]
    twice = len(set(titles)) < len(titles)
    return [
        Group(str(next(iter(seeds.values())).workdir) if twice else title, seeds)
        for title, seeds in zip(titles, found.values())
    ]


def config_diff(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """The settings that differ: key -> one value per group; None where a group lacks it."""
    firsts = [next(iter(g.runs.values())).config for g in groups]
    keys = sorted({key for other in firsts[1:] for key in resume_config.diff(firsts[0], other)})
    keys = [key for key in keys if key not in ("seed", "name")]
    return {key: [_setting(config, key) for config in firsts] for key in keys}


def _setting(config: configs.ConfigDict, key: str) -> Any:
    value = json.loads(configs.to_json(config))
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def compare(groups: Sequence[Group]) -> dict[str, Any]:
    """Everything as JSON values.

    Returns:
      "groups": title, seeds, steps and workdirs; "config": see `config_diff`; "results": metric ->
      one dict per group with mean, half (of the interval; None for one seed), n, and for all but
      the first delta and delta_half; "not_comparable": evaluators that ran at different steps.
    """
    metrics = sorted(
        {m for g in groups for r in g.runs.values() for m in r.results.get("values", {})}
    )
    results: dict[str, list[dict[str, Any]]] = {}
    for metric in metrics:
        first = groups[0].values(metric)
        results[metric] = []
        for i, one in enumerate(groups):
            values = one.values(metric)
            mean, half = mean_and_interval(list(values.values()))
            cell = {"mean": mean, "half": half, "n": len(values)}
            if i:
                cell["delta"], cell["delta_half"] = difference(values, first)
            results[metric].append({k: _finite(v) for k, v in cell.items()})
    return {
        "groups": [
            {
                "title": one.title,
                "seeds": sorted(one.runs),
                "steps": sorted({run.results.get("step") for run in one.runs.values()}, key=str),
                "workdirs": [str(run.workdir) for run in one.runs.values()],
            }
            for one in groups
        ],
        "config": config_diff(groups),
        "results": results,
        "not_comparable": _not_comparable(groups),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _not_comparable(groups: Sequence[Group]) -> list[str]:
    """Evaluators that ran at different steps."""
    seen: dict[str, set[int]] = {}
    for one in groups:
        for run in one.runs.values():
            for name in run.results.get("evaluators", {}):
                seen.setdefault(name, set()).add(run.results["step"])
    return sorted(name for name, steps in seen.items() if len(steps) > 1)


def text(found: Mapping[str, Any]) -> str:
    """The comparison as Markdown."""
    titles = [one["title"] for one in found["groups"]]
    head = [f"| | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    rows = [f"| seeds | {' | '.join(str(len(one['seeds'])) for one in found['groups'])} |"]
    rows += [f"| {k} | {' | '.join(map(str, v))} |" for k, v in found["config"].items()]
    for metric, cells in found["results"].items():
        mark = " (not comparable)" * (metric.split("/")[0] in found["not_comparable"])
        rows.append(f"| {metric}{mark} | {' | '.join(map(_cell, cells))} |")
    return "\n".join([*head, *rows])


def _cell(cell: Mapping[str, Any]) -> str:
    def shown(name, half, sign=""):
        if cell.get(name) is None:
            return "–"
        spread = "" if cell.get(half) is None else f" ± {cell[half]:.2g}"
        return f"{cell[name]:{sign}.4g}{spread}"

    if "delta" not in cell:
        return shown("mean", "half")
    return f"{shown('mean', 'half')} ({shown('delta', 'delta_half', '+')})"


def curves(groups: Sequence[Group]) -> dict[str, bytes]:
    """An SVG per scalar, with a line per group: the mean over its seeds, where all have it."""
    names = {name for g in groups for r in g.runs.values() for row in r.rows for name in row}
    found = {}
    for name in sorted(n for n in names if n.startswith(CURVES)):
        series = {one.title: _mean_curve(one, name) for one in groups}
        series = {title: points for title, points in series.items() if len(points[0]) > 1}
        if series:
            found[name] = lines(series, smoothed=name.startswith("train/"))
    return found


def _mean_curve(one: Group, name: str) -> tuple[list[float], list[float]]:
    each = [
        {row["step"]: row[name] for row in run.rows if name in row} for run in one.runs.values()
    ]
    steps = sorted(set.intersection(*(set(points) for points in each)))
    return steps, [float(np.mean([points[step] for points in each])) for step in steps]


def write_html(path: Path, found: Mapping[str, Any], drawn: Mapping[str, bytes]) -> None:
    """The comparison as a self-contained page."""
    titles = [one["title"] for one in found["groups"]]

    def table(rows: Mapping[str, Sequence[str]]) -> str:
        head = "".join(f"<th>{html.escape(t)}</th>" for t in titles)
        body = "".join(
            f"<tr><th>{html.escape(name)}</th>"
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
            + "</tr>"
            for name, cells in rows.items()
        )
        return (
            f'<div class="scroll"><table class="results"><thead><tr><th></th>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    marked = found["not_comparable"]
    note = '<p class="note">Mean over seeds ± half of its 95 % confidence interval (Student\'s t). '
    note += "In brackets: difference from the first, paired by seed.</p>"
    results = {
        metric + " (not comparable)" * (metric.split("/")[0] in marked): list(map(_cell, cells))
        for metric, cells in found["results"].items()
    }
    settings = {key: list(map(str, values)) for key, values in found["config"].items()}
    images = card_grid((name, inline_svg(svg, name), "") for name, svg in drawn.items())
    sections = [
        ("config", "What differs", table(settings) if settings else ""),
        ("results", "Results", note + table(results) if results else ""),
        ("curves", "Curves", images),
    ]
    about = {
        one["title"]: f"{len(one['seeds'])} seed{'s' * (len(one['seeds']) > 1)}, "
        f"step {', '.join(map(str, one['steps']))}"
        for one in found["groups"]
    }
    write_page(path, "Comparison of runs", about, [s for s in sections if s[2]])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, help="folder for compare.html and compare.json")
    parser.add_argument(
        "--without", action="append", default=[], metavar="NAME", help="an evaluator to leave out"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    args = parser.parse_args()
    try:
        groups = group(find_runs(args.runs, args.without))
        found = compare(groups)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(json.dumps(found, indent=2) if args.json else text(found))
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        storage.write(args.out / "compare.json", json.dumps(found, indent=2) + "\n")
        write_html(args.out / "compare.html", found, curves(groups))
        print(f"report: {args.out / 'compare.html'}", file=sys.stderr)


if __name__ == "__main__":
    main()
