"""Fuzzed readers of files that mmjax itself wrote and something else has damaged: those of a run,
converted sets, indexes of shards and images, clusters."""

import contextlib
import json
import os
from pathlib import Path

import numpy as np

from mmjax.data import bad_records, clusters, columns
from mmjax.data.convert import convert
from mmjax.data.shards.merged import cache_folder
from mmjax.data.sources.array_records import open_records
from mmjax.data.sources.webdataset import open_shards
from mmjax.run import data_manifest, goodput
from mmjax.search import index as search_index
from mmjax.search import lookup
from mmjax.workdir import batch_log, manifest
from mmjax.workdir.metrics import MetricWriter, read_metrics
from mmjax.workdir.results import read_results, rewind_results
from tests.fuzz.reader import Reader, Seed
from tests.fuzz.sets import photo, shard_files

FILES = {
    "metrics.jsonl": [{"step": 1, "train/loss": 1.5}, {"step": 2, "train/loss": "NaN"}],
    "batches.jsonl": [{"step": 1, "image": 5}, {"step": 2, "image": 6}],
    "results.jsonl": [
        {"step": 2, "evaluator": "a", "fingerprint": "f", "values": {"accuracy": 0.5}}
    ],
    "goodput.jsonl": [
        {"began": 1.0, "step": 0, "time": 3.0, "lost": {}},
        {"step": 10, "time": 9.0, "lost": {"compile": 2.5, "data": 0.1}},
        {"began": 12.0, "step": 5, "time": 13.0, "lost": {}},
        {"step": 10, "time": 20.0, "lost": {"checkpoint": 1.0}, "end": True},
    ],
    "bad_records.jsonl": [{"source": "a", "key": "b", "kind": "bad_row", "reason": "c"}],
}
RUN = {
    "config": {"seed": 0},
    "starts": [{"step": 0}, {"step": 5}],
    "results": {"step": 1, "evaluators": {"a": "f"}, "values": {"a/accuracy": 0.25}},
}
ENTRIES = [["a/0.jpg", 9, "12", 1], ["b/", 100, "5f", 20]]


def _lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode("utf-8", "surrogatepass")


def _data() -> dict:
    entries = [data_manifest.Entry(*entry) for entry in ENTRIES]
    one = {"name": "a", "examples": 21, "files": 21, "bytes": 109}
    one |= {"digest": data_manifest.file_list.digest(entries), "entries": entries}
    return {"format": 1, "sources": {"": one}, "settings": {}, "transforms": {}, "tokenizer": None}


def _runs(folder) -> list[Seed]:
    files = {name: _lines(rows) for name, rows in FILES.items()}
    files |= {"run.json": json.dumps(RUN).encode()}
    files |= {"data.json": json.dumps(_data()).encode()}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    trees = [Seed(json.dumps(rows).encode(), name, True) for name, rows in FILES.items()]
    trees += [Seed(files[name], name, True) for name in ("run.json", "data.json")]
    return trees + [Seed(files[name], name) for name in FILES]


def _written(data: bytes, seed: Seed) -> bytes:
    """The file of a seed: one of lines, of which the tree is their list."""
    if seed.tree and seed.about.endswith(".jsonl"):
        try:
            tree = json.loads(data)
        except (ValueError, RecursionError):
            return data + b"\n"
        return _lines(tree if isinstance(tree, list) else [tree])
    return data


def _read_run(data: bytes, seed: Seed, folder) -> None:
    path = folder / seed.about
    path.write_bytes(_written(data, seed))
    reads = {
        "metrics.jsonl": (read_metrics, lambda f: MetricWriter(f, tensorboard=False).rewind(1)),
        "batches.jsonl": (lambda f: batch_log.line_of(f, 1),),
        "results.jsonl": (read_results, lambda f: rewind_results(f, 1)),
        "run.json": (manifest.read_manifest, read_results),
        "goodput.jsonl": (goodput.read, lambda f: goodput.Ledger(f, 30.0).enter(5, 10)),
        "bad_records.jsonl": (lambda f: bad_records.allow([], 1, 1, "a", Path(f)),),
        "data.json": (_changes,),
    }[seed.about]
    refused = None
    try:
        for read in reads:
            try:
                read(folder)
            except ValueError as error:
                refused = error
    finally:
        path.write_bytes(_written(seed.data, seed))
    if refused is not None:
        raise refused


def _changes(folder) -> None:
    saved = {"data": data_manifest.summary(_data())}
    now = _data()
    now["sources"][""] |= {"digest": "other", "entries": now["sources"][""]["entries"][:1]}
    data_manifest.changes(folder, now, saved)


def _sets(folder) -> list[Seed]:
    source = folder / "photos"
    source.mkdir()
    for i in range(3):
        (source / f"{i}.jpg").write_bytes(photo())
    (source / "captions.jsonl").write_bytes(
        _lines([{"file_name": f"{i}.jpg", "caption": "a"} for i in range(3)])
    )
    given = {"kind": "folder", "root": str(source), "captions": "captions.jsonl"}
    convert(given, folder / "set", size=8, quality=90, shard_records=2)
    found = []
    for path in sorted((folder / "set").iterdir()):
        if path.suffix in (".json", ".jsonl", ".meta", ".array_record"):
            found.append(Seed(path.read_bytes(), path))
    return _with_trees(found)


def _with_trees(seeds: list[Seed]) -> list[Seed]:
    """The seeds, and those of JSON once more, to be mutated by their tree."""
    return seeds + [Seed(x.data, x.about, True) for x in seeds if x.about.suffix == ".json"]


def _read_set(data: bytes, seed: Seed, folder) -> None:
    seed.about.write_bytes(data)
    try:
        source = open_records(folder / "set")
        for i in range(len(source)):
            with contextlib.suppress(OSError):  # the example is taken as missing
                source.meta(i)
                source[i]
    finally:
        seed.about.write_bytes(seed.data)


def _indexes(folder) -> list[Seed]:
    """Of shards: the index of one, and that of all; both begin with a line of JSON."""
    (folder / "0.tar").write_bytes(shard_files()[0])
    os.utime(folder / "0.tar", ns=(0, 0))
    open_shards(str(folder / "0.tar"), data_dir=folder, workdir=folder)
    seeds = []
    for path in sorted(cache_folder(folder).iterdir()):
        if columns.read(path) is not None:
            head, _, rest = path.read_bytes().partition(b"\n")
            seeds += [Seed(path.read_bytes(), (path, b"")), Seed(head, (path, b"\n" + rest), True)]
    return seeds


def _read_index(data: bytes, seed: Seed, folder) -> None:
    path, rest = seed.about
    path.write_bytes(data + rest)
    try:
        source = open_shards(
            str(folder / "0.tar"), max_bad_records=1.0, data_dir=folder, workdir=folder
        )
        for i in range(len(source)):
            with contextlib.suppress(OSError):  # as of a shard that has changed since
                source[i]
    finally:
        path.write_bytes(seed.data + rest)


def _galleries(folder) -> list[Seed]:
    for kind in ("float32", "int8"):
        place = folder / kind
        place.mkdir()
        search_index.create(place, folder, "model", "f", 4, kind)
        writer = search_index.Writer(place)
        files = [search_index.File(f"{i}.jpg", 9, 1, f"hash{i}", i) for i in range(3)]
        faulty = search_index.File("bad.jpg", 9, 1, fault="damaged")
        writer.append(np.eye(3, 4), [*files, faulty])
        writer.finish()
        lookup.write(place, 0)
    seeds = []
    for path in sorted(folder.glob("*/*")):
        if path.suffix in (".json", ".jsonl", ".npy"):
            seeds.append(Seed(path.read_bytes(), path))
    return _with_trees(seeds)


def _read_gallery(data: bytes, seed: Seed, folder) -> None:
    path = seed.about
    path.write_bytes(data)
    try:
        if path.suffix == ".npy":
            try:
                found = lookup.Lookup(path.parent, 0)
                for row in found.rows()[-1:]:
                    found.paths(int(row))
            except (OSError, ValueError):  # then the search goes without it
                return
        else:
            found = search_index.Index(path.parent)
            found.search(np.eye(2, 4, dtype=np.float32), 2, by=_First(found.rows))
            found.sample(2)
            found.faults()
    finally:
        path.write_bytes(seed.data)


class _First:
    """Finds the first rows."""

    def __init__(self, rows: int):
        self.rows = rows

    def search(self, queries, k: int):
        rows = np.arange(min(k, self.rows))
        return np.ones((len(queries), len(rows))), np.tile(rows, (len(queries), 1))


def _clusters(folder) -> list[Seed]:
    points = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    clusters.save(clusters.fit(points, 2, 2, iterations=2), folder)
    seeds = [Seed(path.read_bytes(), path) for path in sorted(folder.iterdir())]
    return _with_trees(seeds)


def _read_clusters(data: bytes, seed: Seed, folder) -> None:
    seed.about.write_bytes(data)
    try:
        found = clusters.load(folder)
        found.ids(np.zeros((2, found.centers[0].shape[-1]), np.float32))
    finally:
        seed.about.write_bytes(seed.data)


READERS = {
    "run": Reader(_runs, _read_run, 150),
    "converted": Reader(_sets, _read_set, 100),
    "shard_index": Reader(_indexes, _read_index, 60),
    "gallery": Reader(_galleries, _read_gallery, 150),
    "clusters": Reader(_clusters, _read_clusters, 200),
}
