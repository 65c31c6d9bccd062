"""Requests that fail: repeated, or one sentence."""

import threading

import buckets
import pytest

from mmjax import storage
from mmjax.storage import lease, mirror


@pytest.fixture(params=["gs", "s3"])
def bucket(request, tmp_path):
    """(proxy, URL of an empty folder)."""
    proxy = getattr(buckets, request.param)()
    return proxy, f"{request.param}://{buckets.BUCKET}/{tmp_path.name}"


def test_a_request_that_fails_is_repeated(bucket):
    proxy, url = bucket
    path = f"{url}/a.txt"
    with proxy.failing(buckets.Fault("^P(OST|UT) ", status=503)):
        storage.write(path, "0123456789")
    with proxy.failing(buckets.Fault("^GET .*a.txt")):  # a lost connection
        assert storage.read(path, 2, 4) == b"2345"
    with proxy.failing(buckets.Fault("^GET .*a.txt", seconds=1)):
        assert storage.read(path) == b"0123456789"


def test_of_several_writers_one_creates_a_file(bucket):
    proxy, url = bucket
    with proxy.failing(buckets.Fault("^P(OST|UT) ", lost_answer=True)):
        # Repeated, it finds its own file.
        assert not storage.write_new(f"{url}/new", "mine")
    assert storage.read(f"{url}/new") == b"mine"
    won = []

    def create(name):
        if storage.write_new(f"{url}/raced", name):
            won.append(name.encode())

    threads = [threading.Thread(target=create, args=(f"{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [storage.read(f"{url}/raced")] == won


def test_no_permission_and_no_bucket_are_one_sentence(bucket):
    scheme = bucket[1].partition("://")[0]
    for call in (lambda p: storage.write(p, ""), storage.read, storage.stat, storage.listing):
        with pytest.raises(storage.StorageError, match=f"no permission .*{scheme}://private"):
            call(f"{scheme}://{buckets.PRIVATE}/a")
    if scheme == "gs":
        refused = pytest.raises(storage.StorageError, match="are no credentials .*gcloud auth")
        with bucket[0].failing(buckets.Fault("^GET ", status=401)), refused:
            storage.read(f"{bucket[1]}/a")
    with pytest.raises(storage.StorageError, match=f"bucket {scheme}://missing does not exist"):
        storage.write(f"{scheme}://missing/a", "")
    if scheme == "s3":
        with pytest.raises(storage.StorageError, match="failed: Invalid bucket name"):
            storage.read("s3://Bad!/a")


def test_a_lock_has_one_holder_until_its_beat_stops(bucket, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(lease, "DEAD_AFTER_SECONDS", 1.0)
    folder, lost = f"{bucket[1]}/.lock", threading.Event()
    first = lease.take(folder, lambda pid: True)
    first.start(lost.set)
    refused = lease.take(folder, lambda pid: True)
    assert refused["id"] == lease.holder(folder)["id"] == first._mine["id"]

    first._done.set()  # it stops to beat, as if its machine was gone
    first._thread.join()
    second = lease.take(folder, lambda pid: True)
    assert isinstance(second, lease.Lease) and len(storage.listing(folder)) == 1
    again = lease.Lease(folder, first._number, first._mine)
    again.start(lost.set)  # and comes back
    assert lost.wait(5)
    second.start(lost.set)
    second.release()
    third = lease.take(folder, lambda pid: False)
    assert lease.holder(folder) == third._mine
    # Of a process that has died on this host no beat is awaited.
    monkeypatch.setattr(lease, "DEAD_AFTER_SECONDS", 1000.0)
    assert isinstance(lease.take(folder, lambda pid: False), lease.Lease)


def test_a_lock_that_is_released_while_it_is_watched_is_looked_at_again(bucket, monkeypatch):
    folder, watched = f"{bucket[1]}/.lock", []
    storage.write(folder, "")  # of a run on a disk that was copied, and another file that was
    storage.write(f"{folder}/note", "")
    first = lease.take(folder, lambda pid: True)
    first.start(lambda: None)

    def beats(path):
        watched.append(path)
        if len(watched) == 1:
            first.release()
            lease.take(folder, lambda pid: True)  # another run is faster
        return len(watched) > 1

    monkeypatch.setattr(lease, "_beats", beats)
    refused = lease.take(folder, lambda pid: True)
    assert len(watched) == 2 and refused == lease.holder(folder)
    assert lease._newest(folder) == 1


def test_a_mirror_pushes_what_changes(bucket):
    proxy, url = bucket
    storage.write(f"{url}/old.txt", "old")
    storage.write(f"{url}/gone.txt", "gone")
    with mirror.opened(url, write=True) as here:
        assert (here / "old.txt").read_text() == "old"
        (here / "gone.txt").unlink()
        (here / "d").mkdir()
        (here / "d" / "new.txt").write_text("new")
        (here / "x.partial").write_text("not whole")
        mirror.push(here)
        assert storage.read(f"{url}/d/new.txt") == b"new"
        before = len(proxy.requests)
        mirror.push(here)
        assert len(proxy.requests) == before  # nothing has changed
        (here / "d" / "new.txt").write_text("newer")
        assert mirror.shown(here / "d" / "new.txt") == f"{url}/d/new.txt"
    names = [name.removeprefix(f"{url}/") for name in storage.listing(url)]
    assert names == ["d/new.txt", "old.txt"] and not here.exists()
    assert storage.read(f"{url}/d/new.txt") == b"newer"
    with mirror.opened(url) as here:
        (here / "old.txt").write_text("of a reader")
        storage.write(f"{url}/d/new.txt", "of the writer")
        mirror.sync(here)
        assert (here / "d" / "new.txt").read_text() == "of the writer"
        (here / "list.jsonl").write_text("of a reader")
        mine = mirror.own(here / "list.jsonl")
        mine.write_text("its")
        mirror._OPEN[str(here)].push()
        mine.write_text("its own")
        mirror.sync(here)
        assert mine.read_text() == "its own"
    assert [x.removeprefix(f"{url}/") for x in storage.listing(url)] == sorted([*names, mine.name])
    assert storage.read(f"{url}/{mine.name}") == b"its own"
    assert storage.read(f"{url}/old.txt") == b"old"
    with mirror.opened(f"{url}/old.txt") as file:
        assert file.name == "old.txt" and file.read_text() == "old"


def test_what_cannot_be_pushed_stays(bucket, monkeypatch):
    _, url = bucket
    with pytest.raises(storage.StorageError, match="What is not there yet is in ") as error:  # noqa: SIM117
        with mirror.opened(url, write=True) as here:
            (here / "a.txt").write_text("kept")
            private = url.replace(f"//{buckets.BUCKET}/", f"//{buckets.PRIVATE}/")
            monkeypatch.setattr(mirror._OPEN[str(here)], "url", private)
    assert str(here) in str(error.value) and (here / "a.txt").read_text() == "kept"


def test_a_mirror_that_was_emptied_removes_nothing(bucket):
    _, url = bucket
    storage.write(f"{url}/a.txt", "kept")
    with pytest.raises(storage.StorageError, match=r"has been emptied: set TMPDIR"):  # noqa: SIM117
        with mirror.opened(url, write=True) as here:
            for path in here.iterdir():
                path.unlink()
    assert storage.read(f"{url}/a.txt") == b"kept"


def test_of_a_checkpoint_that_was_pushed_in_part_nothing_is_pulled(tmp_path):
    buckets.s3()
    url = f"s3://{buckets.BUCKET}/{tmp_path.name}"
    for name in ("2/state/a", f"2/{mirror.WHOLE}", "4/state/a"):
        storage.write(f"{url}/checkpoints/{name}", "")
    with mirror.opened(url) as here:
        found = sorted(str(x.relative_to(here)) for x in here.rglob("*") if x.is_file())
    assert found == [".url", f"checkpoints/2/{mirror.WHOLE}", "checkpoints/2/state/a"]


def test_a_push_of_several_checkpoints_completes_one_after_the_other(tmp_path):
    """So a kill in the second leaves the first whole."""
    proxy = buckets.s3()
    with mirror.opened(f"s3://{buckets.BUCKET}/{tmp_path.name}", write=True) as here:
        for name in (f"10/{mirror.WHOLE}", "10/state/a", f"2/{mirror.WHOLE}", "2/state/a"):
            path = here / "checkpoints" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        (here / "metrics.jsonl").write_text("x")
        before = len(proxy.requests)
        mirror.push(here)
        written = [x.split(f"{tmp_path.name}/")[1] for x in proxy.requests[before:] if "PUT" in x]
    assert written == ["metrics.jsonl"] + [
        f"checkpoints/{step}/{name}" for step in (2, 10) for name in ("state/a", mirror.WHOLE)
    ]
