"""The tables of clip_emoji's README: the seeds of a config against the baselines.

    python -m experiments.clip_emoji.table runs/clip_emoji runs/seed1 runs/seed2

Mean and sample standard deviation over the runs, in percent.
"""

import json
import statistics
import sys
from pathlib import Path

SPLITS = {
    "seen_test": "(a) seen concepts, unseen style",
    "unseen_test": "(b) unseen concepts, seen style",
    "unseen_test_openmoji": "(b) unseen concepts, unseen style",
}
COLUMNS = [(direction, k) for direction in ("text_to_image", "image_to_text") for k in ("1", "5")]


def table(workdirs: list[str]) -> str:
    """Markdown of the runs' results beside the baselines that their config names."""
    manifests = [json.loads((Path(w) / "run.json").read_text()) for w in workdirs]
    config = manifests[0]["config"]
    runs = [manifest["results"]["values"] for manifest in manifests]
    baselines = json.loads(Path(config["baselines"]).read_text())["results"]
    head = "".join(f" {d.replace('_', ' ')} R@{k} |" for d, k in COLUMNS)
    lines = [f"| split | model |{head}", "|---|---|" + "---|" * len(COLUMNS)]
    for split, title in SPLITS.items():
        for name, results in baselines.items():
            cells = [f"{100 * results[split][f'{d}/recall@{k}']:.1f}" for d, k in COLUMNS]
            lines.append(f"| {title} | {name} | {' | '.join(cells)} |")
        cells = []
        for d, k in COLUMNS:
            values = [100 * run[f"{split}/{d}/recall@{k}"] for run in runs]
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            cells.append(f"{statistics.mean(values):.1f} ± {spread:.1f}")
        lines.append(
            f"| {title} | **{config['name']}** ({len(runs)} seeds) | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(sys.argv[1:]))
