"""The log of batches: a line a step, whatever kills the run, and what differs from it."""

import json

import numpy as np
import toy

from mmjax.workdir import batch_log
from mmjax.workdir.batch_log import BatchLog


def test_lines_are_only_added_and_the_newest_counts(tmp_path):
    config = toy.config()
    first, second = (toy.batch(config, seed) for seed in (0, 1))
    log = BatchLog(tmp_path)
    log.add(1, first)
    log.add(2, first)
    assert not log.path.exists()
    log.flush()
    log.flush()  # nothing new
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + whole[:20])  # killed in the middle of a line
    log = BatchLog(tmp_path)
    log.add(2, second)
    log.flush()
    assert log.path.read_bytes().startswith(whole)
    rows = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 2]
    assert rows[0].keys() == {"step", *first}
    assert batch_log.differing(batch_log.line_of(tmp_path, 1), first) == []
    assert batch_log.differing(batch_log.line_of(tmp_path, 2), second) == []
    assert batch_log.line_of(tmp_path, 3) is None


def test_every_difference_is_named(tmp_path):
    batch = toy.batch(toy.config())
    log = BatchLog(tmp_path)
    log.add(1, batch)
    log.flush()
    line = batch_log.line_of(tmp_path, 1)
    image = batch["image"].copy()
    image[3, 2, 1, 0] ^= 1
    other = {**batch, "image": image, "label": np.zeros(8, np.int32)}
    del other["text_mask"]
    assert batch_log.differing(line, other) == ["image", "label", "text_mask"]
