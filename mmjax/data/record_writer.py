"""Writes a data set as ArrayRecord shards, which `data/sources/array_records.py` reads.

A run that is interrupted at any moment continues with the first shard that is not complete.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter

from mmjax import storage
from mmjax.data.bad_records import LIST_NAME, LOCK_NAME, BadRecord, allow, most_allowed
from mmjax.data.cache import locked
from mmjax.data.source import Source
from mmjax.data.sources.array_records import (
    DATASET,
    SHARDS,
    meta_of,
    read_dataset,
    read_shards,
    write_metas,
)
from mmjax.process.progress import Progress
from mmjax.workdir import jsonl

# A record as msgpack, an example that cannot be used, or None: left out on purpose.
Record = bytes | BadRecord | None


def write_set(
    target: Path,
    open_source: Callable[[], Source],
    records: Callable[[Source, range, Path], Iterator[Record]],
    *,
    settings: Mapping[str, Any],
    what: str,
    shard_records: int,
    max_bad_records: int | float,
    extra: Sequence[str] = (),
) -> None:
    """Write one record per example of a source to `target`; complete shards are not rewritten.

    Args:
      target: a folder that is new, empty, or has a set begun with the same settings.
      records: (source, indices, path of their shard) -> their records, in order; it is called
        once per shard, and what it writes beside the shard is complete when its iterator ends.
      settings: what determines the records, for the comparison with an earlier run.
      what: "Converting", for the progress bar.
      shard_records: examples per shard.
      max_bad_records: how many unusable examples are skipped: a count, or a fraction as a float.
      extra: ends of names of further files that `target` may contain.

    Raises:
      ValueError: settings out of range, a target with other contents, too many bad records, or a
        full disk; complete shards are kept.
    """
    if shard_records < 1:
        raise ValueError(f"--shard_records is {shard_records}; it must be 1 or more examples.")
    with locked(target.parent / f".{target.name}.lock"):
        _check_files(target, extra)
        source = open_source()
        firsts = range(0, len(source), shard_records)
        sizes = {"records": len(source), "shard_records": shard_records, "shards": len(firsts)}
        _claim(target, {**settings, **sizes, "class_names": source.class_names})
        jsonl.cut_torn_end(target / SHARDS)
        done = read_shards(target)
        bad = [BadRecord(*b) for shard in done for b in shard["bad"]]
        most = most_allowed(max_bad_records, len(source), "max_bad_records")
        name = f"{source.name} ({what.lower()})"
        left = max(0, len(source) - len(done) * shard_records)
        with Progress(f"{what} {source.name}", left) as bar:
            for number in range(len(done), len(firsts)):
                indices = range(len(source))[firsts[number] :][:shard_records]
                shard = target / f"{number:05d}-of-{len(firsts):05d}.array_record"
                written, found = _write_shard(shard, records(source, indices, shard), bar)
                bad += found
                if len(bad) > most:
                    allow(bad, len(source), max_bad_records, name, target)
                row = {"name": shard.name, "records": written, "bytes": shard.stat().st_size}
                row["bad"] = [[b.key, b.kind, b.reason] for b in found]
                jsonl.append(target / SHARDS, [row])
        allow(bad, len(source), max_bad_records, name, target)


def _check_files(target: Path, extra: Sequence[str]) -> None:
    """Refuse a folder that contains files of something else."""
    ours = (DATASET, SHARDS, LIST_NAME, LOCK_NAME)
    there = target.iterdir() if target.is_dir() else [target] if target.exists() else []
    for path in there:
        known = path.name in ours or path.name.endswith(tuple(extra))
        if not known and ".array_record" not in path.name:
            raise ValueError(
                f"The target {target} holds something else, {path.name}: give a --target that is "
                "new or empty."
            )


def _claim(target: Path, dataset: Mapping[str, Any]) -> None:
    """Write the set's settings, or check that an earlier run here used the same ones."""
    target.mkdir(parents=True, exist_ok=True)
    path = target / DATASET
    text = json.dumps(dataset, indent=1, ensure_ascii=False)
    if not path.exists():
        if any(target.glob("*.array_record*")):
            raise ValueError(
                f"The target {target} holds shards but no {DATASET}: give a --target that is new "
                "or empty."
            )
        return storage.write(path, text)
    begun, now = read_dataset(target), json.loads(text)
    for key in now:
        if begun.get(key) != now[key]:
            raise ValueError(
                f"The target {target} holds a data set with {key} = {begun.get(key)!r}, and now it "
                f"is {now[key]!r}: give another --target, or delete that folder."
            )
    return None


def _write_shard(
    path: Path, records: Iterator[Record], bar: Progress
) -> tuple[int, list[BadRecord]]:
    """Write a shard, renamed to `path` once complete: the number of records, and the bad ones."""
    partial = path.with_name(path.name + ".partial")
    metas, bad = [], []
    try:
        # Group size 1: one record can be read alone. JPEGs are compressed already.
        writer = ArrayRecordWriter(str(partial), "group_size:1,uncompressed")
        for record in records:
            if isinstance(record, BadRecord):
                bad.append(record)
            elif record is not None:
                writer.write(record)
                metas.append(meta_of(record))
            bar.advance()
        writer.close()
        if 2 * sum(map(len, metas)) < partial.stat().st_size:  # else reading all costs no more
            write_metas(path, metas)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"Cannot write {partial} ({error}): free some disk space and run the same command "
            "again; it continues from the last complete shard."
        ) from error
    return len(metas), bad
