"""Shards in a bucket: indexed and read by ranges."""

import buckets
import pytest
from written_sets import photo, write_shard

from mmjax import storage
from mmjax.data.shards import build
from mmjax.data.sources.webdataset import open_shards


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_shards_of_a_bucket(scheme, tmp_path, monkeypatch):
    proxy = getattr(buckets, scheme)()
    base = f"{scheme}://{buckets.BUCKET}/{tmp_path.name}"
    for s in range(3):
        files = [(f"{s}{i}.{e}", photo(i) if e == "png" else "x") for i in range(4) for e in KINDS]
        write_shard(tmp_path / f"{s}.tar", files)
        storage.write(f"{base}/{s}.tar", (tmp_path / f"{s}.tar").read_bytes())
    monkeypatch.setattr(build, "URL_WINDOW", 1024)
    settings = {"data_dir": tmp_path / "cache", "workdir": tmp_path}
    local = open_shards(str(tmp_path / "*.tar"), **settings)
    for pattern in ("{0..2}.tar", "*.tar"):
        source = open_shards(f"{base}/{pattern}", **settings)
        assert len(source) == 12
        assert [source[i] for i in (0, 5, 11)] == [local[i] for i in (0, 5, 11)]
    with pytest.raises(ValueError, match=r"There is no shard .*/3\.tar"):
        open_shards(f"{base}/{{0..3}}.tar", **settings)
    direct = {"cache_gb": 0.0, "max_bad_records": 9, **settings}
    training = open_shards(f"{base}/*.tar", check_media=False, **direct)
    assert not training.is_bad(4)
    local[4], source[7]
    requests = len(proxy.requests)
    assert source[4] == local[4] and len(proxy.requests) == requests  # of a block in the cache
    # Another shard of the same size, whose images can be decoded.
    other = (tmp_path / "2.tar").read_bytes()
    assert len(other) == (tmp_path / "1.tar").stat().st_size
    storage.write(f"{base}/1.tar", other)
    for read in (training.is_bad, training.__getitem__):
        with pytest.raises(OSError, match="has been changed since"):
            read(4)
    for block in (tmp_path / "cache" / "blocks").iterdir():
        block.unlink()
    with pytest.raises(OSError, match="has been changed since"):
        source[7]
    assert open_shards(f"{base}/1.tar", **settings)[0]["key"] == "20"
    storage.write(f"{base}/1.tar", other[:3000])
    with pytest.raises(ValueError, match=r"The shard .*1\.tar cannot be read"):
        open_shards(f"{base}/{{0..2}}.tar", **settings)


KINDS = ("png", "txt")
