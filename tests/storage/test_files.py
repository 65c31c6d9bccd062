"""Files of a disk and of a bucket, under the same functions."""

import buckets
import pytest

from mmjax import storage


@pytest.fixture(params=["disk", "gs", "s3"])
def base(request, tmp_path):
    """An empty folder."""
    if request.param == "disk":
        return str(tmp_path)
    getattr(buckets, request.param)()
    return f"{request.param}://{buckets.BUCKET}/{tmp_path.name}"


def test_a_file_is_written_read_and_removed(base):
    path = storage.join(base, "run", "a.txt")
    storage.write(path, "hällo")
    assert storage.read(path) == "hällo".encode()
    assert storage.read(path, 1, 2) == "ä".encode()
    assert storage.read(path, 3) == b"llo" and storage.read(path, 4, 100) == b"lo"
    assert storage.read(path, 2, 0) == b"" and storage.read(path, 100, 5) == b""
    before = storage.stat(path)
    storage.write(path, b"others")
    after = storage.stat(path)
    assert (before.size, after.size) == (6, 6) and before.version != after.version
    assert not storage.write_new(path, "mine") and storage.read(path) == b"others"
    storage.remove(path)
    assert not storage.exists(path)
    storage.remove(path)
    assert storage.write_new(path, "mine") and storage.read(path) == b"mine"


def test_files_are_listed_with_size_and_version(base):
    for name in ("s/0.tar", "s/1.tar", "s/deep/2.tar", "s/a.txt", "st/no"):
        storage.write(storage.join(base, name), name)
    folder = storage.join(base, "s")
    names = [storage.join(folder, name) for name in ("0.tar", "1.tar", "a.txt", "deep/2.tar")]
    assert storage.listing(folder) == {name: storage.stat(name) for name in names}
    assert list(storage.glob(storage.join(folder, "[01].tar"))) == names[:2]
    assert list(storage.glob(storage.join(folder, "**/*.tar"))) == [*names[:2], names[3]]
    assert storage.listing(storage.join(base, "none")) == {}
    assert storage.exists(folder) and not storage.exists(storage.join(base, "s", "none"))


def test_what_is_missing_is_one_sentence(base):
    path = storage.join(base, "none")
    for call in (storage.read, storage.stat):
        with pytest.raises(storage.StorageError, match=r"none does not exist") as error:
            call(path)
        assert isinstance(error.value, FileNotFoundError)


def test_urls_that_cannot_be_opened_are_named():
    assert storage.is_url("gs://b/x") and storage.is_url("az://b") and not storage.is_url("/a/b")
    with pytest.raises(storage.StorageError, match=r"begin with gs:// and s3://"):
        storage.read("az://b/x")
    with pytest.raises(storage.StorageError, match=r"names no bucket"):
        storage.read("gs:///x")
