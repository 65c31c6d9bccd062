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
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from flax.serialization import msgpack_serialize
from PIL import Image

from mmjax import config as configs
from mmjax.data.bad_records import LIST_NAME, BadRecord, allow, most_allowed
from mmjax.data.cache import locked
from mmjax.data.open_source import open_source, sources_of
from mmjax.data.source import Source
from mmjax.data.sources.array_records import DATASET, SHARDS
from mmjax.data.transforms import image_ops
from mmjax.data.transforms.decode import JPEG_START, as_rgb, decode_image
from mmjax.process.progress import Progress
from mmjax.workdir import jsonl, whole_file


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
    _check(shard_records > 0, "--shard_records", shard_records, "1 or more examples")
    if max_bad_records is None:
        max_bad_records = settings.get("max_bad_records", 0.01)
    with locked(target.parent / f".{target.name}.lock"):
        _check_files(target)
        source = open_source(settings, workdir=target)
        firsts = range(0, len(source), shard_records)
        _claim(
            target,
            {
                "source": dict(settings),
                "records": len(source),
                "size": size,
                "quality": quality,
                "shard_records": shard_records,
                "shards": len(firsts),
                "class_names": source.class_names,
            },
        )
        jsonl.cut_torn_end(target / SHARDS)
        done = jsonl.read(target / SHARDS)
        bad = [BadRecord(*b) for shard in done for b in shard["bad"]]
        most = most_allowed(max_bad_records, len(source), "max_bad_records")
        name = f"{source.name} (converting)"
        left = max(0, len(source) - len(done) * shard_records)
        with Progress(f"Converting {source.name}", left) as bar, ThreadPoolExecutor() as pool:
            for number in range(len(done), len(firsts)):
                indices = range(len(source))[firsts[number] :][:shard_records]
                shard = target / f"{number:05d}-of-{len(firsts):05d}.array_record"
                records = _in_order(pool, lambda i: _record(source, i, size, quality), indices)
                found = _write_shard(shard, records, bar)
                bad += found
                if len(bad) > most:
                    allow(bad, len(source), max_bad_records, name, target)
                row = {"name": shard.name, "records": len(indices) - len(found)}
                row["bytes"] = shard.stat().st_size
                row["bad"] = [[b.key, b.kind, b.reason] for b in found]
                jsonl.append(target / SHARDS, [row])
        allow(bad, len(source), max_bad_records, name, target)


def _check(good: bool, flag: str, value: Any, wanted: str) -> None:
    if not good:
        raise ValueError(f"{flag} is {value}; it must be {wanted}.")


def _check_files(target: Path) -> None:
    """Refuse a folder that contains files of something else."""
    ours = (DATASET, SHARDS, LIST_NAME)
    there = target.iterdir() if target.is_dir() else [target] if target.exists() else []
    for path in there:
        if path.name not in ours and ".array_record" not in path.name:
            raise ValueError(
                f"The target {target} holds something else, {path.name}: give a --target that is "
                "new or empty."
            )


def _claim(target: Path, dataset: Mapping[str, Any]) -> None:
    """Write the conversion's settings, or check that an earlier run here used the same ones."""
    target.mkdir(parents=True, exist_ok=True)
    path = target / DATASET
    text = json.dumps(dataset, indent=1, ensure_ascii=False)
    if not path.exists():
        if any(target.glob("*.array_record*")):
            raise ValueError(
                f"The target {target} holds shards but no {DATASET}: give a --target that is new "
                "or empty."
            )
        return whole_file.write(path, text)
    begun, now = json.loads(path.read_text(encoding="utf-8")), json.loads(text)
    for key in now:
        if begun.get(key) != now[key]:
            raise ValueError(
                f"The target {target} holds a data set with {key} = {begun.get(key)!r}, and now it "
                f"is {now[key]!r}: give another --target, or delete that folder."
            )
    return None


def _record(source: Source, index: int, size: int, quality: int | None) -> bytes | BadRecord:
    key = f"number {index}"
    try:
        example = source[index]
        key = example.get("key", key)
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


def _write_shard(path: Path, records: Iterator[bytes | BadRecord], bar: Progress) -> list:
    """Write a shard, renamed to `path` once complete; returns the bad records."""
    partial = path.with_name(path.name + ".partial")
    bad = []
    try:
        # Group size 1: one record can be read alone. JPEGs are compressed already.
        writer = ArrayRecordWriter(str(partial), "group_size:1,uncompressed")
        for record in records:
            if isinstance(record, BadRecord):
                bad.append(record)
            else:
                writer.write(record)
            bar.advance()
        writer.close()
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"Cannot write {partial} ({error}): free some disk space and run the same command "
            "again; it continues from the last complete shard."
        ) from error
    return bad


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
    shards = jsonl.read(target / SHARDS)
    records, size = (sum(s[key] for s in shards) for key in ("records", "bytes"))
    print(f"{target}: {records:,} examples, {len(shards)} shards, {size / 1e6:,.1f} MB; read it as")
    print({"kind": "array_record", "root": str(target)})


if __name__ == "__main__":
    command.run(main)
