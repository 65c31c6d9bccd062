"""Batches on their way to the device."""

import itertools
import threading
import time

import jax
import numpy as np
import pytest
from numbered import Numbers, noisy, take

from mmjax import sharding
from mmjax.data import prefetch
from mmjax.data.pipeline import train_batches
from mmjax.data.prefetch import prefetch_to_device


def batch_sharding():
    return sharding.batch_sharding(sharding.make_mesh())


def prefetch_threads():
    return [t for t in threading.enumerate() if t.name == "prefetch_to_device"]


def test_prefetch_keeps_order_and_splits_the_batch():
    host = take(6, train_batches(Numbers(20), noisy, batch_size=16, seed=0))
    with prefetch_to_device(iter(host), batch_sharding(), size=2) as batches:
        assert batches.wait_seconds == 0.0
        on_device = list(batches)
    assert batches.wait_seconds > 0.0
    assert len(on_device) == 6 and not prefetch_threads()
    for a, b in zip(host, on_device, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], np.asarray(b[key]))
            assert {s.data.shape[0] for s in b[key].addressable_shards} == {2}
            assert len(b[key].sharding.device_set) == jax.device_count() == 8
        assert b["example_id"].dtype == np.int32


def test_waiting_counts_only_while_the_device_is_idle():
    """Each batch takes 0.1 s; the device is busy for the first 0.25 s."""
    began = time.monotonic()

    def host():
        for _ in range(4):
            time.sleep(0.1)
            yield {"x": np.zeros(8, np.float32)}

    def busy():
        return time.monotonic() < began + 0.25

    with prefetch_to_device(host(), batch_sharding(), busy=busy) as batches:
        next(batches)
        next(batches)
        assert batches.wait_seconds == 0.0
        next(batches)
        next(batches)
    assert 0.05 < batches.wait_seconds <= time.monotonic() - began - 0.2


def test_prefetch_raises_the_workers_error_after_its_batches():
    def host():
        yield {"x": np.zeros(8, np.float32)}
        raise ValueError("Example 'cat' is torn")

    batches = prefetch_to_device(host(), batch_sharding())
    assert next(batches)["x"].shape == (8,)
    with pytest.raises(ValueError, match="'cat' is torn"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)
    assert not prefetch_threads()


def test_closing_ends_an_endless_iterator():
    closed = []

    def host():
        try:
            while True:
                yield {"x": np.zeros(8, np.float32)}
        finally:
            closed.append(True)

    batches = prefetch_to_device(host(), batch_sharding())
    next(batches)
    batches.close()
    batches.close()
    assert closed == [True] and not prefetch_threads() and list(batches) == []


def test_closing_does_not_wait_for_ever_for_a_read_that_hangs(monkeypatch):
    monkeypatch.setattr(prefetch, "PATIENCE", 0.1)
    goes_on = threading.Event()

    def host():
        yield {"x": np.zeros(8, np.float32)}
        goes_on.wait(60)

    batches = prefetch_to_device(host(), batch_sharding())
    next(batches)
    batches.close()
    assert prefetch_threads()  # it still hangs
    goes_on.set()
    prefetch_threads()[0].join(60)


def test_prefetch_holds_no_more_than_its_size():
    made = []

    def host():
        for i in itertools.count():
            made.append(i)
            yield {"x": np.full(8, i, np.float32)}

    batches = prefetch_to_device(host(), batch_sharding(), size=2)
    for _ in range(3):
        next(batches)
    # three taken, two waiting, one in the thread's hand
    threading.Event().wait(0.3)
    assert len(made) <= 6
    batches.close()
