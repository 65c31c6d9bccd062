"""Results of the same config over several seeds: mean ± sample standard deviation.

    python -m experiments.seeds "emoji,openclipart" "bleu_1,cider" mine=runs/a,runs/b other=runs/c

A row for each evaluation and set of runs, a column for each metric, in the units of run.json. A
control of an evaluation counts as one, too: "emoji/shuffled".
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def cell(values: Sequence[float], decimals: int = 3) -> str:
    """The mean; with the spread where there are several values."""
    spread = f" ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{decimals}f}{spread}"


def table(
    evaluations: Sequence[str], metrics: Sequence[str], sets: Mapping[str, Sequence[Path]]
) -> str:
    """Markdown.

    Raises:
      ValueError: a run without results, with another step than the others, or without a metric.
    """
    read = {name: {path: _results(path) for path in paths} for name, paths in sets.items()}
    steps = {found["step"] for runs in read.values() for found in runs.values()}
    if len(steps) > 1:
        raise ValueError(
            f"These runs stopped at different steps, {sorted(steps)}: give equal ones."
        )
    lines = [f"| | runs | {' | '.join(metrics)} |", "|---" * (len(metrics) + 2) + "|"]
    for evaluation in evaluations:
        for name, runs in read.items():
            _check_same_evaluator(evaluation, runs)
            cells = []
            for metric in metrics:
                key = f"{evaluation}/{metric}"
                for path, found in runs.items():
                    if key not in found["values"]:
                        raise ValueError(f"{path} has no {key}: it has {sorted(found['values'])}.")
                cells.append(cell([found["values"][key] for found in runs.values()]))
            lines.append(f"| {evaluation}, {name} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _check_same_evaluator(evaluation: str, runs: Mapping[Path, dict]) -> None:
    """Raise ValueError if the runs were evaluated with different settings or metric versions."""
    first, *_ = runs
    name = evaluation.split("/", 1)[0]
    fingerprints = {path: found.get("evaluators", {}).get(name) for path, found in runs.items()}
    other = [path for path, value in fingerprints.items() if value != fingerprints[first]]
    if other:
        raise ValueError(
            f"{first} and {other[0]} evaluated '{name}' by different settings, or by different "
            "versions of the metrics: evaluate both again with mmjax.evaluate."
        )


def _results(path: Path) -> dict:
    file = path / "run.json"
    found = json.loads(file.read_text()).get("results") if file.exists() else None
    if not found:
        raise ValueError(f"{path} has no results in run.json: train it to its end, or evaluate it.")
    return found


if __name__ == "__main__":
    try:
        evaluations, metrics, *sets = sys.argv[1:]
        pairs = (argument.split("=", 1) for argument in sets)
        sets = {name: [Path(p) for p in paths.split(",")] for name, paths in pairs}
        print(table(evaluations.split(","), metrics.split(","), sets))
    except ValueError as error:
        sys.exit(f"error: {error}\n{__doc__}")
