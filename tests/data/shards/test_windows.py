"""Shards that are read in windows: the order, and that training does not wait for the index."""

import pickle

import numpy as np
import pytest
from written_sets import photo, write_shard

from mmjax.data import mixture, pipeline
from mmjax.data.open_source import index_part, open_source
from mmjax.data.shards import build, windows
from mmjax.data.shards.pattern import find_shards, shuffled
from mmjax.data.transforms.decode import decode_image
from mmjax.workdir import jsonl

SIZES = (5, 3, 4, 6, 2, 4, 3, 5, 4)  # records of the shards
WINDOW = 2
RECORDS = [f"{s}x{i}" for s, n in enumerate(SIZES) for i in range(n)]


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """A function: the training config of these shards with a cache of its own."""
    for s, size in enumerate(SIZES):
        files = [
            (f"{s}x{i}.{e}", photo(i) if e == "png" else b"a\nb")
            for i in range(size)
            for e in ("png", "txt")
        ]
        write_shard(tmp_path / f"{s}.tar", files)
    monkeypatch.setattr(windows, "index_ahead", lambda *args: None)
    monkeypatch.setattr("mmjax.data.sources.webdataset.index_ahead", lambda *args: None)
    pattern = str(tmp_path / "*.tar")

    def config(cache, **more):
        settings = {"kind": "webdataset", "pattern": pattern, "data_dir": str(tmp_path / cache)}
        return settings | {"window": WINDOW, "multiple_captions": False} | more

    return config


def opened(config, tmp_path, **data):
    return mixture.open_training({"train": config, **data}, workdir=tmp_path)


def keys(source, seed, positions):
    return [source.meta(source.index_at(seed, int(p)))["key"] for p in positions]


def indexed(cache):
    return len(list((cache / "shard_index").glob("*.index")))


def test_each_epoch_goes_through_all_records_window_by_window(shards, tmp_path):
    source, total = opened(shards("a"), tmp_path), len(RECORDS)
    first, again, other = (keys(source, s, range(total)) for s in (0, 0, 1))
    second, third = (keys(source, 0, range(e * total, e * total + total)) for e in (1, 2))
    assert first == again
    assert len({tuple(x) for x in (first, other, second, third)}) == 4
    orders = []
    for epoch in (first, other, second, third):
        assert sorted(epoch) == RECORDS
        order, at = [], 0
        while at < total:  # whole shards, WINDOW at a time
            now = list(dict.fromkeys(key[0] for key in epoch[at:]))[:WINDOW]
            size = sum(SIZES[int(s)] for s in now)
            assert {key[0] for key in epoch[at : at + size]} == set(now)
            assert epoch[at : at + size] != sorted(epoch[at : at + size])
            order.append(set(now))
            at += size
        orders.append(order)
    assert (
        orders[0]
        == orders[1]
        == [
            {str(s) for s in shuffled(len(SIZES))[i : i + WINDOW]}
            for i in range(0, len(SIZES), WINDOW)
        ]
    )
    assert orders[1] != orders[2] != orders[3]
    assert len(source) == source.total == total
    assert source.following(total - 1) == 0
    assert sorted(source.meta(i)["key"] for i in range(total)) == RECORDS


def batches(source, first=0, last=12, process=0, count=1):
    made = pipeline.train_batches(
        source,
        image,
        batch_size=4,
        seed=5,
        start_step=first,
        process_index=process,
        process_count=count,
    )
    return [next(made) for _ in range(first, last)]


def image(example, rng):
    number = np.int32(RECORDS.index(example["key"]))
    return {"image": decode_image(example["image"]), "record": number, "draw": rng.random()}


def same(one, two):
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_the_order_is_the_same_however_much_is_indexed(shards, tmp_path):
    source = opened(shards("whole"), tmp_path)
    assert len(source) == len(RECORDS)
    wanted = batches(source)
    assert len(wanted) * 4 > len(RECORDS)  # into the second epoch
    fresh = opened(shards("fresh"), tmp_path)
    assert indexed(tmp_path / "fresh") == WINDOW and fresh.total is None
    assert fresh.ready == opened(shards("whole"), tmp_path).ready
    one = next(pipeline.train_batches(fresh, image, batch_size=4, seed=5, num_threads=0))
    assert indexed(tmp_path / "fresh") == WINDOW
    same([one], wanted[:1])
    same(batches(fresh), wanted)
    assert fresh.total == len(RECORDS)
    # Resumed where nothing is indexed, by two processes, and by a process that makes rows.
    same(batches(opened(shards("resumed"), tmp_path), 7), wanted[7:])
    for process in range(2):
        mine = [{k: v[2 * process :][:2] for k, v in batch.items()} for batch in wanted]
        same(batches(opened(shards(f"p{process}"), tmp_path), process=process, count=2), mine)
    copy = pickle.loads(pickle.dumps(opened(shards("worker"), tmp_path)))
    same(batches(copy, last=5), wanted[:5])


def test_what_is_indexed_ahead_by_parts(shards, tmp_path):
    config = shards("ahead")
    found = find_shards(config["pattern"])
    settings, cache = build.Settings("caption", "image"), tmp_path / "ahead" / "shard_index"
    made = []
    build.build_windows("x", found, settings, cache, WINDOW, (1, 2), lambda: made.append(1))
    assert len(made) == len(SIZES) == indexed(tmp_path / "ahead")
    build.build_windows("x", found, settings, cache, WINDOW, (0, 2), lambda: made.append(1))
    assert len(made) == len(SIZES)
    parts = [(0, 1)]
    (next(cache.glob("*.index"))).unlink()
    build.in_processes(config["pattern"], settings, cache, parts, lambda: made.append(1), WINDOW)
    assert len(made) == len(SIZES) + 1 == indexed(tmp_path / "ahead") + 1
    index_part(config, 1, 2)  # only starts what is done in the background


def test_a_part_of_a_mixture_is_read_in_windows(shards, tmp_path):
    parts = {k: {"source": shards("m"), "weight": w} for k, w in (("a", 1.0), ("b", 1.0))}
    source = opened({"kind": "mixture", "parts": parts}, tmp_path)
    order, total = mixture.order_of(source, 4, 5), len(RECORDS)
    mine = [order.index(0, p) for p in range(total)]
    first = source.parts[0].source.ready
    assert sorted(mine) == list(range(total)) and sorted(mine[:first]) == list(range(first))
    assert mine != [order.index(1, p) for p in range(total)]


def test_a_resume_is_bound_to_the_windows_read(shards, tmp_path):
    fresh = opened(shards("a"), tmp_path)
    first, second = fresh.ready, fresh.size_at(fresh.ready)
    assert (first, second) == tuple(np.cumsum([SIZES[s] for s in shuffled(9)])[[1, 3]])
    assert fresh.size_at(0) == first and fresh.size_at(10 * len(RECORDS)) == len(RECORDS)
    assert mixture.sizes_of(opened(shards("b"), tmp_path), first) == {"": second}
    about = mixture.about(opened(shards("c"), tmp_path), 4)
    assert about["examples"] is None and about["rows"] == 4
    assert len(list(fresh.files())) == len(SIZES)


def test_what_is_known_of_all_windows_is_of_their_size(shards, tmp_path):
    number = shuffled(len(SIZES))[0]  # its texts have one line, those of the others two
    files = [(f"{number}x0.png", photo(0)), (f"{number}x0.txt", b"a")]
    write_shard(tmp_path / f"{number}.tar", files)
    config = shards("a", multiple_captions=None)
    with pytest.raises(ValueError, match=rf"{SIZES[shuffled(9)[1]]} of \d+ texts of"):
        opened(config, tmp_path)
    len(opened(shards("a"), tmp_path))
    assert opened({**config, "window": 1}, tmp_path).ready == 1


def test_bad_records_are_bounded_by_the_windows_read(shards, tmp_path):
    number = shuffled(len(SIZES))[-1]  # of the last window
    write_shard(tmp_path / f"{number}.tar", [(f"{number}x{i}.txt", b"x") for i in range(5)])
    source = opened(shards("bad", max_bad_records=4), tmp_path)
    batches(source, 0, 6)
    with pytest.raises(ValueError, match=r"has 5 bad records of \d+, and max_bad_records = 4"):
        len(source)
    assert len(jsonl.read(tmp_path / "bad_records.jsonl")) == 5
    assert len(opened(shards("bad", max_bad_records=0.2), tmp_path)) == len(RECORDS) - SIZES[number]
    with pytest.raises(ValueError, match=r"max_bad_records = 0.0 allows 0"):
        opened(shards("bad", max_bad_records=0.0), tmp_path)


def test_wrong_settings_are_one_sentence(shards, tmp_path):
    config, within = shards("a"), "has shards with a window, which is for config.data"
    with pytest.raises(ValueError, match=within):
        opened(config, tmp_path, hold_out=0.5)
    with pytest.raises(ValueError, match=within):
        opened({"kind": "joined", "sources": [config]}, tmp_path)
    with pytest.raises(ValueError, match="take out one of the two, 'window' or 'cached_transf"):
        mixture.make_transforms(
            opened(config, tmp_path), {"cached_transform": "decode", "transform": ""}, None
        )
    with pytest.raises(ValueError, match=r"The window of .* is -1: use a number of shards, or 0"):
        opened({**config, "window": -1}, tmp_path)
    with pytest.raises(ValueError, match=r"The cache_gb of .* is -1: use a number from 0"):
        opened({**config, "cache_gb": -1}, tmp_path)
    with pytest.raises(ValueError, match="texts of .* have several lines, such as that of"):
        opened({**config, "multiple_captions": None}, tmp_path)
    assert type(open_source(config)).__name__ == "ShardSource"  # to evaluate
