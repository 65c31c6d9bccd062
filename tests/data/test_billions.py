"""A source of more examples than an int32 counts: order, resume, processes, duplicates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numbered import take

from mmjax import batch as batches
from mmjax.data.mixture import Mixture, Part
from mmjax.data.pipeline import train_batches
from mmjax.data.source import Source
from mmjax.run.evaluation import Runner
from mmjax.system import evaluation_context

N = 3_000_000_000


class Billions(Source):
    name = "billions"

    def __init__(self, number=N):
        self.number = number

    def __len__(self):
        return self.number

    def __getitem__(self, i):
        assert 0 <= i < self.number
        return {"label": i % 1000}


def same(example, rng):
    return example


@pytest.mark.parametrize("mixed", [False, True])
def test_order_and_resume_are_those_of_any_source(mixed):
    source, transform = Billions(), same
    if mixed:
        parts = Part("a", Billions(7)), Part("b", source)
        source = Mixture(parts, [[0, {"a": 1.0, "b": 1.0}]])
        transform = {"a": same, "b": same}
    given = {"batch_size": 64, "seed": 5, "num_threads": 1}
    at = 3 if mixed else N // 64 - 1  # the second of three steps ends an epoch
    whole = take(3, train_batches(source, transform, **given, start_step=at))
    ids = np.concatenate([b["example_id"] for b in whole])
    assert ids.dtype == np.int64 and ids.max() > 2**31 and ids.min() >= 0
    later = take(1, train_batches(source, transform, **given, start_step=at + 2))
    np.testing.assert_array_equal(later[0]["example_id"], whole[2]["example_id"])
    of_processes = [
        take(3, train_batches(source, transform, **given, start_step=at, **process))
        for process in ({"process_index": p, "process_count": 4} for p in range(4))
    ]
    for step, batch in enumerate(whole):
        merged = np.concatenate([rows[step]["example_id"] for rows in of_processes])
        np.testing.assert_array_equal(merged, batch["example_id"])
    if not mixed:
        for batch in whole:
            np.testing.assert_array_equal(batch["label"], batch["example_id"] % 1000)
        assert len(np.unique(ids)) == len(ids)


IDS = np.array([0, 5, 2**31 - 1, 2**31, 2**31 + 5, N - 1, 2**32 - 2, 5, -1, -1])


def test_ids_on_a_device_differ_where_examples_do_and_come_back():
    """And they are what they always were up to 2**31, so that batches.jsonl of old runs agrees."""
    on_device = batches.to_device_dtypes({"example_id": IDS})["example_id"]
    assert on_device.dtype == np.int32
    np.testing.assert_array_equal(on_device[:3], IDS[:3])
    np.testing.assert_array_equal(batches.example_ids(on_device), IDS)
    equal = jnp.asarray(on_device)[:, None] == jnp.asarray(on_device)[None]
    np.testing.assert_array_equal(equal, IDS[:, None] == IDS[None])
    context = evaluation_context({"example_id": jnp.asarray(on_device[:7])}, 0, {})
    assert len(np.unique(jax.random.key_data(context.rng), axis=0)) == 7


def test_rows_of_processes_are_merged_by_their_ids(monkeypatch):
    """Here the rows of a process stand for those of all, which come from the devices."""
    runner = object.__new__(Runner)
    runner._share, runner._collect = (0, 2), None
    monkeypatch.setattr(runner, "_on_mesh", lambda f, v, batch: batches.to_device_dtypes(batch))
    found = runner.gather({"example_id": IDS, "label": np.arange(10)})
    np.testing.assert_array_equal(found["example_id"], IDS)
    np.testing.assert_array_equal(found["label"], np.arange(10))
