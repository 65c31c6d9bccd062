"""Rows made by processes are those made by threads; errors and killed workers are named."""

import contextlib
import multiprocessing
import os
import pickle
import signal

import numpy as np
import pytest
from tiny_clip import write_folder

from mmjax import config as configs
from mmjax.data import mixture, pipeline, workers
from mmjax.data.order import MixtureOrder
from mmjax.data.text.train_words import train_words


@pytest.fixture
def data(tmp_path):
    """`config.data` of a mixture: one part cached, both augmented."""
    write_folder(tmp_path / "a")
    write_folder(tmp_path / "b")

    def part(name):
        return {"kind": "folder", "root": str(tmp_path / name), "captions": "captions.jsonl"}

    data = configs.defaults().data
    a = {"source": part("a"), "cached_transform": "decode | resize(12)", "weight": 2.0}
    a["transform"] = "flip | choose_caption"
    b = {"source": part("b"), "transform": "decode | random_resized_crop(12) | first_caption"}
    data.train = {"kind": "mixture", "parts": {"a": a, "b": b}}
    data.transform = "tokenize(8)"
    return data


def stream(data, tmp_path, **settings):
    source = mixture.open_training(data, workdir=tmp_path)
    tokenizer = train_words(["a red square and a blue circle"], 32)
    source, transform = mixture.make_transforms(source, data, tokenizer)
    return pipeline.train_batches(source, transform, batch_size=8, seed=3, **settings)


def take(batches, n):
    with contextlib.closing(batches):
        return [next(batches) for _ in range(n)]


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], strict=True, err_msg=key)


def test_processes_make_the_batches_that_threads_make_also_from_the_middle(data, tmp_path):
    expected = take(stream(data, tmp_path), 6)
    same(take(stream(data, tmp_path, num_workers=2), 6), expected)
    same(take(stream(data, tmp_path, num_workers=1, start_step=4), 2), expected[4:])
    assert not multiprocessing.active_children()  # closed with the stream


def test_an_example_that_cannot_be_used_is_named(data, tmp_path):
    batches = stream(data, tmp_path, num_workers=1)
    (tmp_path / "b" / "013.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"Example '013.png' of .* cannot be used") as error:
        take(batches, 9)
    assert error.traceback[-1].frame.f_globals["__name__"] == workers.__name__  # exit code 2


def test_a_killed_worker_ends_the_stream_with_one_sentence(data, tmp_path):
    batches = stream(data, tmp_path, num_workers=1)
    next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGTERM)  # left to the process that trains
    next(batches)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(ValueError, match=r"killed \(exit code -9\).*num_workers"):
        for _ in range(99):
            next(batches)


def test_an_order_and_a_tokenizer_are_sent_without_their_caches():
    order = MixtureOrder([(0, {"a": 1, "b": 2})], 8, 0, {"a": 5, "b": 7})
    expected = [order.rows(step) for step in range(4)]
    copy = pickle.loads(pickle.dumps(order))
    np.testing.assert_equal([copy.rows(step) for step in range(4)], expected)
    tokenizer = train_words(["a red square and a blue circle"], 32)
    expected = tokenizer.encode(["a blue square"], 8)
    copy = pickle.loads(pickle.dumps(tokenizer))
    np.testing.assert_equal(copy.encode(["a blue square"], 8), expected)
    assert copy.fingerprint == tokenizer.fingerprint
