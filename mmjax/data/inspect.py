"""Show what a config feeds to its model: a page of its first rows, shapes, ranges and rates.

    python -m mmjax.data.inspect configs/clip_emoji.py --out=inspect.html

The rows are those that training reads, after all transforms: images with boxes and masks, decoded
captions, spectrograms, frames of videos. No parameters are made, and nothing is compiled. --step
shows a later batch, and --config.KEY=VALUE changes settings.
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("config", {"help": "a file of configs/"}),
        ("--out", {"default": "inspect.html", "help": "the page"}),
        ("--step", {"type": int, "default": 1, "help": "whose batch; the first is 1"}),
        ("--rows", {"type": int, "default": 24, "help": "how many rows the page shows"}),
        ("--seconds", {"type": float, "default": 10.0, "help": "how long rates are measured"}),
    )

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from mmjax import config as configs
from mmjax.batch import Batch, check, to_device_dtypes
from mmjax.data.mixture import Mixture, rows_of
from mmjax.process.printable import printable
from mmjax.report import batch_page
from mmjax.run import experiment, labels
from mmjax.workdir.tables import print_table

MOST_ROWS = 256  # of a batch that are made: a pod's does not fit on a laptop
MOST_BATCHES = 64


def inspect(
    config: ConfigDict, out: Path, step: int = 1, rows: int = 24, seconds: float = 10.0
) -> None:
    """Make batches for `seconds`, write the page and print its tables.

    Raises:
      ValueError: settings or data that are wrong, or rows that the model does not take.
    """
    if step < 1 or rows < 1:
        raise ValueError(f"--step is {step} and --rows {rows}: both are at least 1.")
    with config.unlocked():  # this machine's devices
        config.mesh, config.microbatches = {"data": -1, "fsdp": 1, "tensor": 1}, 1
    size = config.batch_size
    with tempfile.TemporaryDirectory() as folder:  # for a tokenizer that is trained
        source = experiment.open_training(config.data, Path(folder))
        tokenizer = experiment.make_tokenizer(config, Path(folder), source, None)
    run = experiment.build(config, tokenizer)
    source = labels.by_name(run, source, None)
    common = math.gcd(size, *rows_of(source, size).values())  # of the batches of all parts
    divisors = [n for n in range(1, common + 1) if common % n == 0]
    blocks = next((n for n in divisors if size <= n * MOST_ROWS), common)
    stream = experiment.training_batches(
        config, run.system, source, tokenizer, step - 1, (0, blocks)
    )
    kept, first, taken = _timed(stream, seconds)
    made = sum(len(batch["example_id"]) for batch in kept[1:])
    local = len(kept[0]["example_id"])
    which = f"all {local:,}" if blocks == 1 else f"the first {local:,} of {blocks * local:,}"
    mixed = isinstance(source, Mixture)
    workers = config.data.num_workers
    makers = f"{workers} processes" if workers else f"{config.data.num_threads} threads"
    about = {
        "Source": f"{printable(source.name)}, {source.ready:,} examples"
        + ("" if source.total else " and more"),
        "Batch": f"step {step}: {which} rows",
        "First rows after": f"{first:.2f} s",
    }
    if made:
        about["Rate"] = f"{made / taken:,.0f} examples/s by {makers} on {os.cpu_count()} cores"
    if tokenizer is not None and not workers:
        about["Truncated texts"] = f"{tokenizer.truncation_rate:.1%}"
    batch_page.write_batch_page(
        out,
        f"{config.name}: what the model is given",
        about,
        kept,
        run.spec,
        shown=rows,
        key_of=lambda i: printable(str(source.meta(i).get("key", ""))),
        tokenizer=tokenizer,
        class_names=source.class_names,
        parts=[part.name for part in source.parts] if mixed else (),
    )
    for name, value in about.items():
        print(f"{name}: {value}")
    print_table(batch_page.arrays(kept, run.spec))
    for table in (
        batch_page.modalities(kept),
        batch_page.part_counts(kept, [p.name for p in source.parts] if mixed else ()),
    ):
        if table:
            print_table(table)
    print(f"page: {out}")
    for batch in kept:  # parts of a mixture may differ
        check(to_device_dtypes(batch), run.spec)


def _timed(stream: Iterator[Batch], seconds: float) -> tuple[list[Batch], float, float]:
    """Batches made for `seconds`, the time to the first of them, and that of all others."""
    began, kept = time.perf_counter(), []
    with contextlib.closing(stream):
        kept.append(next(stream))
        first = time.perf_counter() - began
        while len(kept) < MOST_BATCHES and time.perf_counter() - began - first < seconds:
            kept.append(next(stream))
        return kept, first, time.perf_counter() - began - first


def main() -> None:
    """The command."""
    config = configs.load(ARGS.config, ARGS.overrides)
    inspect(config, Path(ARGS.out), ARGS.step, ARGS.rows, ARGS.seconds)


if __name__ == "__main__":
    command.run(main)
