r"""The runs of a grid as curves: a metric over a quantity that its cells differ in.

    python -m experiments.curves --grid=experiments/noise_scale/grid.py --out=runs/noise_scale \
        --metric=unseen_test/text_to_image/recall@5 --plot=curves.png

The grid's file has `curve(title) -> (line, x)`, the place of a cell in the plot. Runs that are not
done are left out; `--more` adds lines of a JSON file {line: {x: [value of each seed]}}.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

from experiments.ablate import function_of, gather, load_grid, make_runs
from experiments.ablation_table import mean_and_interval

Lines = dict[str, dict[float, list[float]]]  # line -> x -> the value of each seed


def collect(path: str, out: Path, metric: str) -> Lines:
    """The lines of a grid's runs that are done.

    Raises:
      ValueError: the grid's file has no `curve`.
    """
    grid = load_grid(path)
    curve = function_of(path, "curve", "(title), which gives a cell's line and x")
    lines: Lines = {}
    for cell, _, _, value in gather(make_runs(grid, out), [metric]):
        line, x = curve(cell.title)
        lines.setdefault(line, {}).setdefault(x, []).append(value)
    return lines


def markdown(lines: Lines) -> str:
    """A row per line and a column per x, in percent, with the 95 % interval over seeds."""
    places = sorted({x for points in lines.values() for x in points})
    head = "".join(f" {x:g} |" for x in places)
    rows = [f"| |{head}", "|---|" + "---|" * len(places)]
    for name, points in lines.items():
        cells = []
        for x in places:
            mean, half = mean_and_interval(points.get(x, []))
            spread = "" if math.isnan(half) else f" ± {100 * half:.1f}"
            cells.append("–" if math.isnan(mean) else f"{100 * mean:.1f}{spread}")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def plot(lines: Lines, title: str, path: Path, log: bool) -> None:
    """One line for each of `lines`, with a dot per seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for number, (name, points) in enumerate(lines.items()):
        places = sorted(points)
        means = [100 * mean_and_interval(points[x])[0] for x in places]
        axes.plot(places, means, "-", color=f"C{number}", label=name)
        for x in places:
            axes.plot([x] * len(points[x]), [100 * v for v in points[x]], ".", color=f"C{number}")
    if log:
        axes.set_xscale("log")
    axes.set_ylabel(f"{title}, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def read_lines(path: str) -> Lines:
    """The lines of a JSON file.

    Raises:
      ValueError: no such file, or no lines in it.
    """
    if not Path(path).is_file():
        raise ValueError(f"There is no file of lines '{path}'.")
    found: Mapping[str, Mapping[str, list[float]]] = json.loads(Path(path).read_text())
    try:
        return {name: {float(x): v for x, v in points.items()} for name, points in found.items()}
    except (AttributeError, ValueError):
        raise ValueError(f"{path} has no lines, {{line: {{x: [value of each seed]}}}}.") from None


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grid", required=True, help="the grid's Python file")
    parser.add_argument("--out", required=True, help="folder of the runs")
    parser.add_argument("--metric", required=True, help="evaluation/metric, in [0, 1]")
    parser.add_argument("--more", help="a JSON file with further lines")
    parser.add_argument("--plot", required=True, help="file of the plot")
    parser.add_argument("--log", action="store_true", help="a logarithmic horizontal axis")
    args = parser.parse_args()
    lines = collect(args.grid, Path(args.out), args.metric)
    if args.more:
        lines |= read_lines(args.more)
    if not lines:
        raise ValueError(f"No run of {args.grid} in {args.out} is done: start experiments.ablate.")
    plot(lines, args.metric, Path(args.plot), args.log)
    print(markdown(lines))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
