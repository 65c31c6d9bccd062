r"""Arrange conversations, or images, into rows of one length, with little padding.

    python -m mmjax.pack --config=configs/mine.py --out=data/packs.json

Counts the tokens of every conversation of config.data.train, those of its images included, by the
`converse` step of config.data.transform, and writes which of them share a row. Then train with
config.data.train = {"kind": "packed", "source": the same source, "file": "data/packs.json"}: a
conversation attends to itself alone, so that the loss is that of the rows without packing.

Images at their own aspect ratio are packed likewise, where the transform has
`patches(budget, patch_size)` and ends with `pack(length, images)`: their patches are counted.

    python -m mmjax.pack --config=configs/mine.py --lengths=16,32,64 --out=data/lengths.json

sorts examples by length instead, by their patches if the transform has patches(...), otherwise by
the tokens of their longest caption, for a mixture of whole batches (mmjax/data/mixture.py) with a
part for each length: {"source": {"kind": "bucket", "source": the same source, "file":
"data/lengths.json", "length": 16}, "transform": "... | tokenize(16)", "batch_size": ..., "weight":
...}. It prints the weights with which all examples are seen equally often.
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("--config", {"required": True, "help": "a file with get_config()"}),
        ("--out", {"required": True, "help": "the file to write"}),
        ("--lengths", {"default": "", "help": "lengths of buckets, by commas; default: pack rows"}),
    )

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax import config as configs
from mmjax import storage
from mmjax.data.open_source import open_source
from mmjax.data.source import Source
from mmjax.data.sources.packed import first_fit, images_of
from mmjax.data.transforms import chain, parse
from mmjax.data.transforms.captions import captions_of
from mmjax.data.transforms.converse import converse
from mmjax.data.transforms.patch_steps import budget_of
from mmjax.process.progress import Progress
from mmjax.run.experiment import texts_of
from mmjax.run.tokenizer import make_tokenizer


def measure(
    source: Source, transform: str, tokenizer: Any
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Tokens and images [N] of each example, and how many of both a row has.

    Raises:
      ValueError: a chain with neither `converse` nor `pack`, rows shorter than the budget of an
        image, or as `patches_of`; a conversation that does not fit into a row, or an example
        without messages, which the chain would draw anew at each step.
    """
    steps = {name: (args, kwargs) for name, args, kwargs, _ in chain.read(transform)}
    if "pack" in steps:
        args, kwargs = steps["pack"]
        given = inspect.signature(parse.pack).bind(*args, **kwargs).arguments
        budget, _ = budget_of(transform) or (0, 0)
        if budget > given["length"]:
            raise ValueError(
                f"config.data.transform has images of up to {budget} patches, and pack(...) rows "
                f"of {given['length']}: lower the budget of patches(...), or make the rows longer."
            )
        counts = patches_of(source, transform)
        return counts, np.ones_like(counts), given["length"], given["images"]
    if "converse" not in steps:
        raise ValueError(
            "config.data.transform has neither converse(...) nor pack(...), which write the rows."
        )
    args, kwargs = steps["converse"]
    given = inspect.signature(converse).bind(*args, **kwargs, tokenizer=tokenizer)
    given.apply_defaults()
    whole = parse.parse(transform, tokenizer=tokenizer)
    write = (
        whole
        if "tiles" in steps
        else parse.parse(chain.only(transform, ("converse",)), tokenizer=tokenizer)
    )
    tokens, images = (np.zeros(len(source), np.int64) for _ in range(2))
    with Progress(f"counting the tokens of {source.name}", len(source)) as bar:
        for i in range(len(source)):
            example = source[i] if "tiles" in steps else _without_pixels(source.meta(i))
            if "messages" not in example:
                raise ValueError(
                    f"Example {i} of {source.name} has no messages: only conversations that are "
                    "the same at each step can be packed."
                )
            row = write(example, np.random.default_rng(0))
            tokens[i] = row["text_mask"].sum()
            images[i] = row["image_mask"].sum() if "image_mask" in row else 0
            bar.advance(1)
    return tokens, images, given.arguments["length"], given.arguments["images"]


# Steps of an image that say its number of patches, and those that draw it anew.
_SIZED = ("decode", "resize", "resize_short", "resize_long", "resize_between", "resize_smoothed")
_SIZED += ("center_crop", "pad_square", "trim", "patches")
_DRAWN = ("random_crop", "random_resized_crop")


def patches_of(source: Source, transform: str) -> np.ndarray:
    """Patches [N] of the image of each example.

    Raises:
      ValueError: a chain without `patches`, or one that draws the size of an image at each step.
    """
    steps = [name for name, *_ in chain.read(transform)]
    drawn = [name for name in _DRAWN if name in steps]
    if "patches" not in steps or drawn:
        raise ValueError(
            f"config.data.transform has {drawn[0] if drawn else 'no patches(...)'}: only images "
            "whose patches are the same at each step can be packed."
        )
    cut = parse.parse(chain.only(transform, _SIZED))
    counts = np.zeros(len(source), np.int64)
    with Progress(f"counting the patches of {source.name}", len(source)) as bar:
        for i in range(len(source)):
            counts[i] = cut(source[i], np.random.default_rng(0))["image_grid"].prod()
            bar.advance(1)
    return counts


def tokens_of(source: Source, tokenizer: Any, most: int) -> np.ndarray:
    """Tokens [N] of the longest caption of each example, at most `most`."""
    counts = np.zeros(len(source), np.int64)
    with Progress(f"counting the tokens of {source.name}", len(source)) as bar:
        for i in range(len(source)):
            texts = captions_of(source.meta(i), source.class_names)
            counts[i] = tokenizer.rows(texts, most)[1].sum(1).max()
            bar.advance(1)
    return counts


def _without_pixels(example: Mapping[str, Any]) -> dict[str, Any]:
    """An example with an image of one pixel for each of its own."""
    count = example.get("images", len(images_of(dict(example))))
    return {**example, "image": (np.zeros((1, 1, 3), np.uint8),) * count}


def into_buckets(counts: np.ndarray, lengths: Sequence[int]) -> dict[int, list[int]]:
    """The examples of each bucket: of the shortest that holds so many; of the longest, where none
    does."""
    buckets = sorted(set(lengths))
    chosen = np.minimum(np.searchsorted(buckets, counts), len(buckets) - 1)
    return {length: np.flatnonzero(chosen == b).tolist() for b, length in enumerate(buckets)}


def _lengths() -> list[int]:
    try:
        lengths = [int(length) for length in ARGS.lengths.split(",")]
    except ValueError:
        lengths = [0]
    if min(lengths) < 1:
        raise ValueError(f"--lengths is '{ARGS.lengths}': give whole numbers from 1, by commas.")
    return lengths


def _write(groups: Mapping[str, Any]) -> None:
    storage.write(Path(ARGS.out), json.dumps(groups) + "\n")


def main() -> None:
    """The command."""
    config = configs.load(ARGS.config, ARGS.overrides)
    train = config.data.train
    train = train.get("source", train) if train.get("kind") == "packed" else train
    source = open_source(train)
    transform = " | ".join(filter(None, (config.data.cached_transform, config.data.transform)))
    steps = {name for name, *_ in chain.read(transform)}
    tokenizer = None
    if not steps & {"patches", "pack"}:
        tokenizer = make_tokenizer(config.tokenizer, corpus=texts_of(source))
    if ARGS.lengths:
        lengths = _lengths()
        if tokenizer is None:
            counts = patches_of(source, transform)
        else:
            counts = tokens_of(source, tokenizer, max(lengths))
        buckets = into_buckets(counts, lengths)
        _write({"source": source.name, "buckets": buckets})
        for length, members in buckets.items():
            fraction = len(members) / len(source)
            print(
                f"at most {length}: {len(members):,} examples; weight {fraction:.4g} with equal "
                f"batch sizes, {fraction * length:.4g} with equal tokens"
            )
        return
    tokens, images, length, most = measure(source, transform, tokenizer)
    groups = first_fit(tokens, images, length, most)
    _write({"source": source.name, "length": length, "images": most, "groups": groups})
    filled = tokens.sum() / (len(groups) * length)
    print(
        f"{len(source):,} examples in {len(groups):,} rows of {length}: {filled:.1%} of the "
        f"tokens are used, {tokens.sum() / (len(source) * length):.1%} without packing"
    )


if __name__ == "__main__":
    command.run(main)
