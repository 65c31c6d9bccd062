"""The local cache of blocks of objects: bounded, shared, and of one version."""

import os
import random
import threading

import pytest

from mmjax import storage
from mmjax.storage import blocks, files


@pytest.fixture
def store(monkeypatch):
    """(objects by URL, requests) of a bucket in memory."""
    objects, requests = {}, []

    def read_version(url, version, offset, size):
        requests.append((url, offset, size))
        if version != objects[url][0]:
            raise storage.ChangedFileError(f"{url} has been changed or removed.")
        return objects[url][1][offset : offset + size]

    monkeypatch.setattr(files, "read_version", read_version)
    monkeypatch.setattr(blocks, "BLOCK", 1000)
    monkeypatch.setattr(blocks, "_SWEPT", 1)
    return objects, requests


def test_ranges_are_those_of_the_object(store, tmp_path):
    objects, requests = store
    data = random.Random(0).randbytes(3456)
    objects["gs://b/a"] = ("1", data)
    cache, stat = blocks.Blocks(tmp_path, 10**6), storage.Stat(len(data), "1")
    for offset, size in ((0, 10), (990, 20), (0, 3456), (3000, 999), (1000, 1000), (500, 0)):
        assert cache.read("gs://b/a", stat, offset, size) == data[offset : offset + size]
    assert sorted(requests) == [("gs://b/a", s, min(1000, 3456 - s)) for s in range(0, 4000, 1000)]
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1])  # cut off
    assert cache.read("gs://b/a", stat, 0, 3456) == data and len(requests) == 8
    objects["gs://b/a"] = ("2", data[::-1])
    assert cache.read("gs://b/a", stat, 5, 5) == data[5:10]
    assert cache.read("gs://b/a", storage.Stat(3456, "2"), 0, 9) == data[::-1][:9]
    objects["gs://b/a"] = ("3", data)
    with pytest.raises(storage.ChangedFileError):
        cache.read("gs://b/a", storage.Stat(3456, "2"), 2000, 9)


def test_the_blocks_that_were_used_last_stay(store, tmp_path):
    objects, requests = store
    objects["gs://b/a"] = ("1", bytes(10_000))
    cache, stat = blocks.Blocks(tmp_path, 3000), storage.Stat(10_000, "1")
    for number in (0, 1, 2):
        cache.read("gs://b/a", stat, 1000 * number, 10)
    for age, path in enumerate(sorted(tmp_path.iterdir(), key=lambda x: x.stat().st_mtime_ns)):
        os.utime(path, (age, age))
    cache.read("gs://b/a", stat, 0, 10)  # the oldest, used again
    cache.read("gs://b/a", stat, 3000, 10)
    assert len(list(tmp_path.iterdir())) == 3
    requests.clear()
    for number in (0, 2, 3):
        cache.read("gs://b/a", stat, 1000 * number, 10)
    assert not requests
    cache.read("gs://b/a", stat, 1000, 10)
    assert len(requests) == 1


def test_threads_ask_once_for_a_block(store, tmp_path):
    objects, requests = store
    objects["gs://b/a"] = ("1", bytes(1000))
    cache = blocks.Blocks(tmp_path, 10**6)
    stat, together = storage.Stat(1000, "1"), threading.Barrier(8)

    def read():
        together.wait()
        assert cache.read("gs://b/a", stat, 10, 10) == bytes(10)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(requests) == 1


def test_a_full_disk_costs_only_the_cache(store, tmp_path):
    objects, requests = store
    objects["gs://b/a"] = ("1", bytes(1000))
    cache = blocks.Blocks(tmp_path / "gone", 10**6)
    (tmp_path / "gone").rmdir()
    (tmp_path / "gone").write_text("a file")
    for _ in range(2):
        assert cache.read("gs://b/a", storage.Stat(1000, "1"), 0, 10) == bytes(10)
    assert len(requests) == 2
