"""Word error rate against signal-to-noise ratio, from the finished runs of the grid.

    python -m experiments.avsr_digits.curve runs/avsr_digits experiments/avsr_digits/curve.png

A line per arm with the mean over seeds, and a dot per run.
"""

import sys
from pathlib import Path

import numpy as np

from configs.avsr_digits import RATIOS
from experiments.ablate import cells, load_grid, make_runs

GRID = "experiments/avsr_digits/grid.py"
PLACES = ("clean", *(f"snr_{ratio}" for ratio in RATIOS))


def rates(out: str) -> dict[str, np.ndarray]:
    """Word error rates of each arm: [seeds, places]."""
    grid = load_grid(GRID)
    found: dict[str, list] = {cell.title: [] for cell in cells(grid)}
    for run in make_runs(grid, Path(out)):
        values = run.results()
        if values is not None:
            found[run.cell.title].append([values[f"{place}/wer"] for place in PLACES])
    return {title: np.asarray(rows) for title, rows in found.items() if rows}


def main() -> None:
    """The command."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    out, path = sys.argv[1:]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for title, rows in rates(out).items():
        (line,) = axes.plot(100 * rows.mean(0), label=f"{title} ({len(rows)} seeds)")
        for row in rows:
            axes.plot(100 * row, ".", color=line.get_color(), alpha=0.5)
    axes.set_xticks(range(len(PLACES)), ["no noise", *(f"{ratio} dB" for ratio in RATIOS)])
    axes.set_ylabel("word error rate, %")
    axes.set_ylim(0)
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
