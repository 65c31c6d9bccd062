"""An index that is renewed while it is read: what is read is never of two states."""

import threading
import time

import numpy as np
import pytest

from mmjax.search.index import File, Index, Writer, create
from mmjax.search.live import Live

DIM = 8


def vector(name):
    """What the file of that name shows."""
    found = np.random.default_rng(int(name)).standard_normal(DIM).astype(np.float32)
    return found / np.linalg.norm(found)


def add(writer, names):
    files = [File(str(n), 1, 1, f"hash{n}", writer.rows + i) for i, n in enumerate(names)]
    writer.append(np.stack([vector(n) for n in names]), files)


def check(index):
    """Every file has its own vector, and is found by it."""
    assert index.rows == len(index.files) > 0
    for name, file in index.files.items():
        np.testing.assert_array_equal(index.vectors[file.row], vector(name))
    name = next(iter(index.files))
    (hits,) = index.search(vector(name)[None], 1)
    assert hits[0].paths == [name]


@pytest.fixture
def folder(tmp_path):
    create(tmp_path / "index", tmp_path, "model", "fingerprint", DIM, "float32")
    writer = Writer(tmp_path / "index")
    add(writer, range(5))
    writer.finish()
    return tmp_path / "index"


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it was not seen"
        time.sleep(0.01)


def test_no_reader_sees_half_of_a_change(folder):
    """While another adds, removes and begins new generations as fast as it can."""
    faults, done = [], threading.Event()

    def write():
        writer = Writer(folder)
        for n in range(5, 65, 3):
            add(writer, range(n, n + 3))
            writer.remove([str(n + 1)])
            writer.compact()
            writer.finish()
        done.set()

    def read():
        live = Live(Index(folder), lambda index: None)
        while not done.is_set():
            index, now = Index(folder), live.now()
            # Between a removal and its compaction there are rows without a file.
            for state in (index, now):
                if not state.rows:
                    faults.append("it is empty")
                for name, file in state.files.items():
                    if not np.array_equal(state.vectors[file.row], vector(name)):
                        faults.append(name)
        until(lambda: live.now().about == Index(folder).about)
        check(live.now())

    failed = []

    def caught(work):
        try:
            work()
        except BaseException as error:
            failed.append(error)
            done.set()

    threads = [threading.Thread(target=caught, args=(w,)) for w in (write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and not faults
    assert Index(folder).about["generation"] >= 20


def test_what_is_done_is_seen_and_what_goes_on_is_not(folder):
    live = Live(Index(folder), lambda index: None)
    first = live.now()
    writer = Writer(folder)
    add(writer, [7])
    assert live.now() is first and live.now().rows == 5
    writer.finish()
    until(lambda: live.now().rows == 6)
    check(first)  # whoever still has it
    check(live.now())
    second = live.now()
    assert live.now() is second  # it is not opened again


def test_a_state_that_is_not_to_be_used_leaves_the_one_before(folder, capsys):
    def check_model(index):
        index.check_model("fingerprint", "the model")

    live = Live(Index(folder), check_model)
    (folder / "index.json").unlink()
    create(folder, folder.parent, "other", "another", DIM, "float32")
    live.now()
    until(lambda: "was made by another model" in capsys.readouterr().err)
    check(live.now())
    (folder / "index.json").write_text("{}")
    live.now()
    until(lambda: "is no index of this version" in capsys.readouterr().err)
    (folder / "index.json").unlink()
    live.now()
    until(lambda: "There is no index" in capsys.readouterr().err)
    check(live.now())
