"""Images of shards that cannot be decoded: found in training, replaced, counted and bounded."""

import logging
import random
import re

import numpy as np
import pytest
from written_sets import photo, write_shard

from mmjax.data import mixture, pipeline
from mmjax.data.open_source import open_source
from mmjax.data.transforms.decode import decode_image
from mmjax.workdir import jsonl

BAD = {3, 4, 11, 17}  # of 24


@pytest.fixture
def config(tmp_path):
    for s in range(3):
        files = []
        for i in range(8 * s, 8 * s + 8):
            data = photo(i)
            files += [(f"{i:02d}.png", data[:90] if i in BAD else data), (f"{i:02d}.txt", b"x")]
        write_shard(tmp_path / f"{s}.tar", files)
    pattern = str(tmp_path / "*.tar")
    settings = {"kind": "webdataset", "pattern": pattern, "data_dir": str(tmp_path / "cache")}
    return settings | {"max_bad_records": 4}


def cropped(example, rng):
    """A transform that uses its random numbers before it decodes."""
    place = rng.integers(0, 8, 2)
    return {"image": decode_image(example["image"])[place[0] :][:32, place[1] :][:, :32]}


def batches(source, first=0, last=12, process=0, count=1, workers=0):
    made = pipeline.train_batches(
        source,
        {part.name: cropped for part in source.parts} if hasattr(source, "parts") else cropped,
        batch_size=8,
        seed=5,
        start_step=first,
        process_index=process,
        process_count=count,
        num_workers=workers,
    )
    return [next(made) for _ in range(first, last)]


def training(config, tmp_path, **data):
    return mixture.open_training({"train": config, **data}, workdir=tmp_path)


def same(one, two):
    for a, b in zip(one, two, strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_the_next_record_replaces_a_bad_one(config, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        found = batches(training(config, tmp_path))
    rows = jsonl.read(tmp_path / "bad_records.jsonl")
    assert {int(row["key"]) for row in rows} == BAD and len(rows) == 4
    assert {row["kind"] for row in rows} == {"unreadable_image"}
    said = [r.getMessage() for r in caplog.records if "found when read" in r.getMessage()]
    assert len(said) == 3 and re.search(r"one of 4 unreadable images found when read; the", said[2])
    # What would have come, with the first good record from each bad one on.
    order = mixture.order_of(training(config, tmp_path), 8, 5)
    swap = {3: 5, 4: 5, 11: 12, 17: 18}
    for step, batch in enumerate(found):
        wanted = [swap.get(i, i) for i in order.rows(step)[1].tolist()]
        assert batch["example_id"].tolist() == wanted
    assert len(jsonl.read(tmp_path / "bad_records.jsonl")) == 4  # stays when it is opened again
    # A run that is resumed, and one of two processes, have the same rows.
    same(batches(training(config, tmp_path), 7), found[7:])
    for process in range(2):
        mine = [{k: v[4 * process :][:4] for k, v in batch.items()} for batch in found]
        same(batches(training(config, tmp_path), process=process, count=2), mine)


def test_sources_around_it_pass_the_question_on(config, tmp_path):
    batches(training(config, tmp_path, hold_out=0.25))
    joined = {"kind": "joined", "sources": [config, {**config, "max_bad_records": 9}]}
    batches(training(joined, tmp_path))
    parts = {"a": {"source": config, "weight": 1.0}, "b": {"source": config, "weight": 2.0}}
    batches(training({"kind": "mixture", "parts": parts}, tmp_path))


def test_too_many_are_one_sentence(config, tmp_path):
    for limit, allowed in ((3, 3), (0.1, 2), (0.0, 0)):
        source = training({**config, "max_bad_records": limit}, tmp_path)
        with pytest.raises(ValueError, match=rf"max_bad_records = {limit} allows {allowed} of 24"):
            batches(source)


def test_an_error_that_is_not_the_images_stops_the_run(config, tmp_path):
    def wrong(example, rng):
        raise ValueError("no such step")

    made = pipeline.train_batches(training(config, tmp_path), wrong, batch_size=8, seed=5)
    with pytest.raises(ValueError, match="cannot be used: no such step"):
        next(made)


def test_nothing_that_can_be_read_ends(tmp_path):
    files = [(f"{i}.{e}", random.Random(i).randbytes(50)) for i in range(3) for e in ("png",)]
    write_shard(tmp_path / "0.tar", [*files, *((f"{i}.txt", b"x") for i in range(3))])
    config = {"kind": "webdataset", "pattern": str(tmp_path / "0.tar"), "max_bad_records": 1.0}
    source = training(config | {"data_dir": str(tmp_path / "cache")}, tmp_path)
    with pytest.raises(ValueError, match="None of the 3 examples"):
        batches(source, last=1)


def test_what_is_held_out_is_not_trained_on(config, tmp_path):
    trained = training(config, tmp_path, hold_out=0.25)
    held = open_source({"kind": "part", "source": config, "start": 0.75}, workdir=tmp_path)
    keys = [{int(s.meta(i)["key"]) for i in range(len(s))} for s in (trained, held)]
    assert not keys[0] & keys[1] and keys[0] | keys[1] | BAD == set(range(24))
    assert trained.unchecked and not held.unchecked and not keys[1] & BAD and keys[0] & BAD


def test_evaluations_check_all_images_first(config, tmp_path):
    source = open_source(config, workdir=tmp_path)
    assert len(source) == 20 and not source.is_bad(0)
    assert [int(source.meta(i)["key"]) for i in range(20)] == sorted(set(range(24)) - BAD)
