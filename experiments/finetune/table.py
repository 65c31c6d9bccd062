"""Before and after fine-tuning, from the run.json of runs, as the table of README.md.

python -m experiments.finetune.table full=RUN,RUN,RUN locked=RUN lora=RUN,RUN
"""

import json
import sys
from pathlib import Path

from experiments.seeds import cell

FIGURES = {
    "cifar10/top1": "CIFAR-10 top-1",
    "emoji_seen/text_to_image/recall@10": "emoji seen, T→I R@10",
    "emoji_seen/image_to_text/recall@10": "emoji seen, I→T R@10",
    "emoji_unseen/text_to_image/recall@10": "emoji unseen, T→I R@10",
    "emoji_unseen/image_to_text/recall@10": "emoji unseen, I→T R@10",
}


def percent(values: list[float]) -> str:
    """Percent, with the sample standard deviation where there are several seeds."""
    return cell([100 * v for v in values], decimals=1)


def table(methods: dict[str, list[Path]]) -> str:
    """A row for the start, which all runs share, and one per method."""
    runs = {
        name: [json.loads((path / "run.json").read_text()) for path in paths]
        for name, paths in methods.items()
    }
    start = next(iter(runs.values()))[0]["start"]["values"]
    if any(run["start"]["values"] != start for found in runs.values() for run in found):
        raise ValueError("These runs do not start from the same metrics: give those of one base.")
    lines = [
        "| | seeds | " + " | ".join(FIGURES.values()) + " |",
        "|---" * (len(FIGURES) + 2) + "|",
    ]
    lines.append("| before | | " + " | ".join(percent([start[f]]) for f in FIGURES) + " |")
    for name, found in runs.items():
        cells = [percent([run["results"]["values"][f] for run in found]) for f in FIGURES]
        lines.append(f"| {name} | {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    pairs = (argument.split("=", 1) for argument in sys.argv[1:])
    print(table({name: [Path(p) for p in paths.split(",")] for name, paths in pairs}))
