"""Convert a source of a config into ArrayRecord shards of smaller images, faster to read.

    python -m mmjax.data.convert --config=configs/vit_cifar10.py --target=DIR --size=256

Images whose shorter side is longer than --size pixels are downscaled to it (antialiased bicubic);
other fields are copied unchanged. An interrupted conversion resumes when the command is run again.
To train: --config.data.train="{'kind': 'array_record', 'root': 'DIR'}"
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before anything heavy is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("--config", {"required": True, "help": "a file of configs/"}),
        (
            "--source",
            {
                "default": "data.train",
                "help": "source to convert, e.g. evals.NAME.source [data.train]",
            },
        ),
        ("--target", {"required": True, "help": "output folder"}),
        ("--size", {"required": True, "type": int, "help": "pixels of the shorter side"}),
        ("--quality", {"type": int, "default": 90, "help": "JPEG quality, 1 to 100 [90]"}),
        ("--raw", {"action": "store_true", "help": "store uint8 pixels instead of JPEG"}),
        ("--shard_records", {"type": int, "default": 10_000, "help": "examples per shard [10000]"}),
        (
            "--max_bad_records",
            {
                "type": lambda text: float(text) if "." in text else int(text),
                "help": "a count, or a fraction (with a point) [the source's setting, or 0.01]",
            },
        ),
    )

import collections
import io
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from flax.serialization import msgpack_serialize
from PIL import Image

from mmjax import config as configs
from mmjax.data import regions
from mmjax.data.bad_records import BadRecord
from mmjax.data.open_source import open_source, sources_of
from mmjax.data.record_writer import write_set
from mmjax.data.source import Source
from mmjax.data.sources.array_records import read_shards
from mmjax.data.transforms import image_ops
from mmjax.data.transforms.decode import JPEG_START, as_rgb, decode_image


def convert(
    settings: Mapping[str, Any],
    target: Path,
    *,
    size: int,
    quality: int | None,
    shard_records: int = 10_000,
    max_bad_records: int | float | None = None,
) -> None:
    """Write a source's examples to `target`; shards that are complete there are not rewritten.

    Args:
      settings: the source, as in a config.
      size: maximum length of the shorter side, in pixels.
      quality: JPEG quality; None stores uint8 pixels.
      shard_records: examples per shard.
      max_bad_records: how many unreadable examples may be skipped (a count, or a fraction as a
        float); None uses the source's own limit.

    Raises:
      ValueError: settings out of range, a target with other contents, too many bad records, or a
        full disk; complete shards are kept.
    """
    _check(size > 0, "--size", size, "1 or more pixels")
    _check(quality is None or 1 <= quality <= 100, "--quality", quality, "1 to 100")
    if max_bad_records is None:
        max_bad_records = settings.get("max_bad_records", 0.01)

    def records(source: Source, indices: range, shard: Path) -> Iterator[bytes | BadRecord]:
        del shard
        with ThreadPoolExecutor() as pool:
            yield from _in_order(pool, lambda i: _record(source, i, size, quality), indices)

    write_set(
        target,
        lambda: open_source(settings, workdir=target),
        records,
        settings={"source": dict(settings), "size": size, "quality": quality},
        what="Converting",
        shard_records=shard_records,
        max_bad_records=max_bad_records,
    )


def _check(good: bool, flag: str, value: Any, wanted: str) -> None:
    if not good:
        raise ValueError(f"{flag} is {value}; it must be {wanted}.")


def _record(source: Source, index: int, size: int, quality: int | None) -> bytes | BadRecord:
    key = f"number {index}"
    try:
        example = source[index]
        key = example.get("key", key)
        if "regions" in example:  # in fractions of the sides: shrinking does not change them
            example = {**example, "regions": regions.plain(example["regions"])}
        return msgpack_serialize({**example, "image": shrink(example["image"], size, quality)})
    except OSError as error:
        return BadRecord(key, "missing_file", str(error))
    except ValueError as error:
        return BadRecord(key, "unreadable_image", str(error))


def shrink(image: bytes | np.ndarray, size: int, quality: int | None) -> bytes | np.ndarray:
    """The image, downscaled so that its shorter side has at most `size` pixels.

    Args:
      image: encoded bytes, or uint8 [H, W, 3].
      quality: of the JPEG that is returned; None returns uint8 [H, W, 3]. A JPEG that is small
        enough is returned unchanged.

    Raises:
      ValueError: bytes that are not a complete image.
    """
    pixels = as_rgb(image) if isinstance(image, np.ndarray) else decode_image(image)
    if min(pixels.shape[:2]) > size:
        pixels = image_ops.resize_short(pixels, size)
    elif quality is not None and isinstance(image, bytes) and image.startswith(JPEG_START):
        return image
    pixels = np.ascontiguousarray(pixels)
    if quality is None:
        return pixels
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return out.getvalue()


def _in_order(pool: ThreadPoolExecutor, work: Callable, items: range) -> Iterator[Any]:
    """`work` of the items, in order, at most 256 items ahead of the consumer."""
    waiting: collections.deque = collections.deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > 256:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def main() -> None:
    """The command."""
    config = configs.load(ARGS.config, ARGS.overrides)
    sources = sources_of(config)
    if ARGS.source not in sources:
        raise ValueError(
            f"{ARGS.config} has no source '{ARGS.source}'; it has {', '.join(sources)}."
        )
    target = Path(ARGS.target).expanduser()
    convert(
        sources[ARGS.source],
        target,
        size=ARGS.size,
        quality=None if ARGS.raw else ARGS.quality,
        shard_records=ARGS.shard_records,
        max_bad_records=ARGS.max_bad_records,
    )
    shards = read_shards(target)
    records, size = (sum(s[key] for s in shards) for key in ("records", "bytes"))
    print(f"{target}: {records:,} examples, {len(shards)} shards, {size / 1e6:,.1f} MB; read it as")
    print({"kind": "array_record", "root": str(target)})


if __name__ == "__main__":
    command.run(main)
