"""The table and the plot of an ablation: means over seeds, and differences paired by seed."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

Values = dict[tuple[Any, str], dict[int, float]]  # (cell, metric) -> seed -> value
COLUMNS = 4  # panels beside each other in a plot


def mean_and_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Mean, and half the width of its confidence interval; NaN for fewer than two values.

    The interval is mean ± t · s / sqrt(n), with Student's t of n - 1 degrees of freedom and s the
    sample standard deviation: it assumes values that are normally distributed over seeds.
    """
    n = len(values)
    if n < 2:
        return (float(values[0]) if n else math.nan), math.nan
    quantile = stats.t.ppf(0.5 + level / 2, n - 1)
    return float(np.mean(values)), float(quantile * np.std(values, ddof=1) / math.sqrt(n))


def difference(cell: Mapping[int, float], baseline: Mapping[int, float]) -> tuple[float, float]:
    """As `mean_and_interval`, of cell minus baseline, over the seeds that both have."""
    seeds = sorted(set(cell) & set(baseline))
    return mean_and_interval([cell[s] - baseline[s] for s in seeds])


def paired_test(cell: Mapping[int, float], baseline: Mapping[int, float]) -> tuple[float, float]:
    """p of the two-sided paired t-test over the seeds that both have, and the effect size.

    The effect size is Cohen's d of paired differences, their mean over their sample standard
    deviation (Cohen 1988, section 2.3.5). Both are NaN for fewer than two seeds; differences that
    are all equal have p = 0, or 1 where they are 0.
    """
    seeds = sorted(set(cell) & set(baseline))
    differences = np.array([cell[s] - baseline[s] for s in seeds])
    if len(seeds) < 2:
        return math.nan, math.nan
    mean, spread = float(np.mean(differences)), float(np.std(differences, ddof=1))
    if spread <= 1e-12 * abs(mean):
        return (0.0, math.copysign(math.inf, mean)) if mean else (1.0, 0.0)
    t = mean / (spread / math.sqrt(len(seeds)))
    return float(2 * stats.t.sf(abs(t), len(seeds) - 1)), mean / spread


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected for their number; NaN are no tests and stay.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    corrected = list(p)
    order = sorted((i for i in range(len(p)) if not math.isnan(p[i])), key=lambda i: p[i])
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p[i]))
        corrected[i] = largest
    return corrected


def compared(
    values: Values, cells: Sequence[Any], baseline: Any, metrics: Iterable[str]
) -> dict[tuple[Any, str], tuple[float, float]]:
    """(cell, metric) -> p, by Holm's correction over the cells of a metric, and effect size.

    A cell that lacks a seed of the baseline's is not tested: it was given up, or is not done.
    """
    found = {}
    for metric in metrics:
        base = values.get((baseline, metric), {})
        others = [cell for cell in cells if cell != baseline]
        whole = [c if set(values.get((c, metric), {})) >= set(base) else None for c in others]
        pairs = [
            (math.nan, math.nan) if c is None else paired_test(values.get((c, metric), {}), base)
            for c in whole
        ]
        for cell, p, (_, effect) in zip(others, holm([p for p, _ in pairs]), pairs):
            found[cell, metric] = p, effect
    return found


def markdown(
    values: Values, cells: Sequence[Any], baseline: Any, metrics: Mapping[str, str]
) -> str:
    """A row per cell; for each metric its mean and its difference from the baseline, in percent,
    with p and the effect size of the difference; see `compared`."""
    head = "".join(f" {title} | Δ | p | d |" for title in metrics.values())
    lines = [f"| cell | seeds |{head}", "|---|---|" + "---|---|---|---|" * len(metrics)]
    tested = compared(values, cells, baseline, metrics)
    for cell in cells:
        counts = {len(values.get((cell, metric), {})) for metric in metrics}
        row = [cell.title + " (baseline)" * (cell == baseline), str(max(counts))]
        for metric in metrics:
            mine = values.get((cell, metric), {})
            row.append(_percent(*mean_and_interval(list(mine.values()))))
            delta = difference(mine, values.get((baseline, metric), {}))
            if cell == baseline:
                row += ["", "", ""]
                continue
            p, effect = tested[cell, metric]
            row.append(_percent(*delta, sign="+"))
            row.append("–" if math.isnan(p) else f"{p:.2g}" if p >= 1e-4 else "< 0.0001")
            row.append("–" if math.isnan(effect) else f"{effect:+.1f}")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _percent(mean: float, half: float, sign: str = "") -> str:
    if math.isnan(mean):
        return "–"
    return f"{100 * mean:{sign}.1f}" + ("" if math.isnan(half) else f" ± {100 * half:.1f}")


def plot(values: Values, cells: Sequence[Any], metrics: Mapping[str, str], path: Path) -> None:
    """A panel per metric: each cell's mean with its 95 % interval, and a dot per seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(COLUMNS, len(metrics))
    rows = -(-len(metrics) // columns)
    figure, panels = plt.subplots(
        rows,
        columns,
        figsize=(3 + 3 * columns, rows * (1 + 0.3 * len(cells))),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel in panels.flat[len(metrics) :]:
        panel.remove()
    places = np.arange(len(cells))[::-1]
    for panel, (metric, title) in zip(panels.flat, metrics.items()):
        for place, cell in zip(places, cells):
            mine = list(values.get((cell, metric), {}).values())
            mean, half = mean_and_interval(mine)
            panel.plot([100 * v for v in mine], [place] * len(mine), ".", color="#bbbbbb")
            half = 0 if math.isnan(half) else half
            panel.errorbar(100 * mean, place, xerr=100 * half, fmt="o", color="#2a5d8f", capsize=3)
        low, high = panel.get_xlim()
        if high - low < 5:  # an insignificant difference should not look like one
            panel.set_xlim((low + high - 5) / 2, (low + high + 5) / 2)
        panel.set_title(f"{title}, %")
        panel.grid(axis="x", alpha=0.3)
    panels[0][0].set_ylim(-0.5, len(cells) - 0.5)
    panels[0][0].set_yticks(places, [cell.title for cell in cells])
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write_report(
    folder: Path,
    found: Iterable[tuple[Any, int, str, float]],
    cells: Sequence[Any],
    baseline: Any,
    metrics: Mapping[str, str],
    commands: Sequence[str],
    more: str = "",
) -> str:
    """Write table.md, plot.png and commands.txt into `folder`; returns the table.

    Args:
      found: (cell, seed, metric, value), values in [0, 1]; cells: in the order of the rows.
      metrics: metric -> column title; commands: of every run; more: a note.
    """
    values: Values = {}
    for cell, seed, metric, value in found:
        values.setdefault((cell, metric), {})[seed] = value
    table = markdown(values, cells, baseline, metrics)
    note = (
        "Percent; mean over seeds ± half of its 95 % confidence interval (Student's t). Δ: "
        "difference from the baseline, paired by seed; p: of the two-sided paired t-test, by "
        "Holm's correction over the cells of a metric; d: mean difference over its deviation."
    )
    note += f"\n\n{more}" if more else ""
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "table.md", f"{table}\n\n{note}\n\nCommands: commands.txt; plot: plot.png.\n")
    _replace(folder / "commands.txt", "\n".join(commands) + "\n")
    plot(values, cells, metrics, folder / "plot.png")
    return table


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    partial.replace(path)
