"""The manifest of a run's data, `<workdir>/data.json`, to which its checkpoints are bound.

It has the settings, the files (see `data/file_list.py`) and the number of examples of each training
source, the transforms, and the tokenizer's fingerprint. A checkpoint has its `summary`, without the
names of the files, and a resume compares that with the files there are now.

The files of evaluators are listed too. Of these nothing depends on but their results: a resume with
others is told, and goes on.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mmjax import storage
from mmjax.data import file_list, mixture
from mmjax.data.bad_records import most_allowed
from mmjax.data.file_list import Entry
from mmjax.data.source import Source
from mmjax.data.text.tokenizer import Tokenizer
from mmjax.process import distributed
from mmjax.storage import mirror
from mmjax.workdir import jsonl

NAME = "data.json"
FORMAT = 1
TRANSFORMS = ("cached_transform", "transform", "batch_transform")

Manifest = dict[str, Any]


def make(source: Source, config: ConfigDict, tokenizer: Tokenizer | None) -> Manifest:
    """The manifest of a training source as it is now; no contents are read, but of small sets.

    Raises:
      HostsError: processes that read files of other names or sizes.
    """
    sources, seen = {}, []
    for name, part in mixture.parts_of(source).items():
        entries = file_list.list_files(part)
        sources[name] = _about(part, entries)
        # Copies of a data set on the disks of several hosts have times of their own.
        seen.append(file_list.digest([entry._replace(stamp="") for entry in entries]))
    distributed.check_same("the list of the data's files", " ".join(seen))
    return {
        "format": FORMAT,
        "sources": sources,
        "settings": jsonl.plain(config.data.train),
        "transforms": {key: config.data[key] for key in TRANSFORMS},
        "tokenizer": tokenizer.fingerprint if tokenizer is not None else None,
    }


def _about(source: Source, entries: list[Entry]) -> dict[str, Any]:
    return {
        "name": source.name,
        "examples": source.total,
        "files": sum(entry.files for entry in entries),
        "bytes": sum(max(0, entry.bytes) for entry in entries),
        "digest": file_list.digest(entries),
        "entries": entries,
    }


def summary(manifest: Manifest) -> Manifest:
    """What a checkpoint keeps of it: everything but the entries and the settings."""
    kept = {key: value for key, value in manifest.items() if key != "settings"}
    kept["sources"] = {
        name: {key: value for key, value in one.items() if key != "entries"}
        for name, one in manifest["sources"].items()
    }
    return jsonl.plain(kept)


def write(workdir: Path, manifest: Manifest) -> None:
    """Write data.json; what an old one has of evaluators stays, see `add_evaluators`.

    Raises:
      ValueError: it cannot be written; the old one stays.
    """
    before = _content(workdir / NAME)
    kept = {key: before[key] for key in ("evaluators", "lists") if key in before}
    storage.write(workdir / NAME, jsonl.line(jsonl.plain(manifest | kept)) + "\n")


def add_evaluators(workdir: Path, sources: Mapping[str, Source]) -> None:
    """Add the files of evaluators to data.json, and warn of those that are others by now.

    `lists` has the entries of each digest, but of those that are a training source's.

    Args:
      sources: place in config.evals -> source.

    Raises:
      ValueError: it cannot be written; the old one stays.
    """
    content = _content(workdir / NAME)
    old, lists = content.get("evaluators", {}), _lists(content)
    trained = {one["digest"] for one in content["sources"].values()}
    found, new = {}, {}
    for place, source in sources.items():
        entries = file_list.list_files(source)
        about = found[place] = _about(source, entries)
        del about["entries"]
        digest = about["digest"]
        if digest not in trained:
            new[digest] = entries
        before = old.get(place)
        if before is not None and before["digest"] != digest:
            listed = [Entry(*entry) for entry in lists.get(before["digest"], ())]
            what = file_list.difference(listed, entries) if listed else "which they were is lost"
            print(
                f"warning: the files of evals.{place} are not those of when this run was started, "
                f"so its results are not comparable to earlier ones: {what or 'in another order'}"
            )
    content |= {"evaluators": found, "lists": new}
    storage.write(workdir / NAME, jsonl.line(jsonl.plain(content)) + "\n")


def _lists(content: Manifest) -> dict[str, list]:
    """The entries of each digest in a data.json."""
    sources = content.get("sources", {}).values()
    return {one["digest"]: one["entries"] for one in sources} | content.get("lists", {})


def _content(path: Path) -> Manifest:
    """The content of a data.json; {} of one that is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        lists = {k: [Entry(*entry) for entry in entries] for k, entries in _lists(found).items()}
        ok = all(file_list.digest(entries) == digest for digest, entries in lists.items())
        named = all(isinstance(x["digest"], str) for x in found.get("evaluators", {}).values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return found if ok and named else {}


def changes(workdir: Path, manifest: Manifest, saved: Mapping[str, Any]) -> dict[str, str]:
    """Part -> how its files differ from those of the run that is resumed; without the unchanged.

    A data.json that does not belong to the checkpoint is reported, and only missed if there are
    names to tell.

    Args:
      manifest: as the data are now; saved: the JSON part of the checkpoint.
    """
    had = saved.get("data")
    if had is None:  # saved before there was a manifest
        return {}
    before, fault = _read(workdir / NAME, had)
    found = {}
    for name, now in manifest["sources"].items():
        old = had["sources"].get(name)
        if old is None or old["digest"] == now["digest"]:
            continue
        if fault:
            found[name] = (
                f"{old['files']:,} files of {old['bytes']:,} bytes before and {now['files']:,} of "
                f"{now['bytes']:,} now, which cannot be named without the {NAME} of that run"
            )
        else:
            entries = [Entry(*entry) for entry in before["sources"][name]["entries"]]
            found[name] = file_list.difference(entries, now["entries"]) or "in another order"
    if fault and not found and distributed.is_main():
        print(f"warning: {mirror.shown(workdir / NAME)} {fault}: it is written again")
    return found


def check_examples(
    source: Source,
    saved: Mapping[str, Any],
    config: ConfigDict,
    allow: Iterable[str],
    changed: Mapping[str, str] = {},
    position: int = 0,
) -> None:
    """Compare the size and the files of the training set with those of the run that is resumed.

    The order is a permutation of all examples: with one file fewer, the whole order differs.

    Args:
      saved: the JSON part of the checkpoint.
      allow: of --allow_change; "data.train" allows any size and any files.
      changed: part -> how its files differ, see `changes`.
      position: rows trained on before, see `Source.size_at`.

    Raises:
      ValueError: another size, and not one that `config.data.max_lost_records` allows; or as many
        examples in other files.
    """
    now = mixture.sizes_of(source, position)
    sizes = saved.get("parts") or {mixture.PLAIN: saved.get("examples", sum(now.values()))}
    for part, has in now.items():
        had = sizes.get(part, has)
        name = f"part '{part}'" if part else source.name
        files = changed.get(part)
        if had == has:
            if files:
                what = f"the files of {name} are not those of when this run was saved: {files}"
                if "data.train" not in allow:
                    raise ValueError(
                        f"{what[0].upper()}{what[1:]}. Restore them, use another --workdir, or "
                        "allow it with --allow_change=data.train."
                    )
                print(f"warning: {what}")
            continue
        what = f"{name} has {has:,} examples and had {had:,} when this run was saved"
        what += f" ({files})" if files else ""
        most = most_allowed(config.data.max_lost_records, had, "config.data.max_lost_records")
        if not 0 < had - has <= most and "data.train" not in allow:
            raise ValueError(
                f"{what}: with another number the order of the examples differs; restore the data "
                "set, or allow it with --allow_change=data.train."
            )
        print(f"warning: {what}: from here on the order of the examples differs")


def _read(path: Path, had: Manifest) -> tuple[Manifest, str]:
    """The manifest of a checkpoint's summary, or why there is none."""
    if not path.is_file():
        return {}, "is missing"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        digests = {
            name: file_list.digest([Entry(*entry) for entry in one["entries"]])
            for name, one in found["sources"].items()
        }
        stated = {name: one["digest"] for name, one in found["sources"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return {}, f"is damaged ({type(error).__name__})"
    if digests != stated:
        return {}, "is damaged (its files do not have its digest)"
    if digests != {name: one["digest"] for name, one in had["sources"].items()}:
        return {}, "is of another run than the checkpoint"
    return found, ""
