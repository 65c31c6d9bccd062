"""Tar shards in the webdataset layout, opened from a config."""

import io
import json
import tarfile

import pytest
from flowers import picture
from written_sets import write_shard

from mmjax.data.open_source import open_source
from mmjax.data.shards import build


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMJAX_DATA_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def examples(source):
    return [source[i] for i in range(len(source))]


def record(key, caption, color, extension="jpg"):
    kinds = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
    meta = {"caption": caption, "url": "x", "status": "success"}
    return [
        (f"{key}.{extension}", picture(color, kinds[extension])),
        (f"{key}.json", json.dumps(meta)),
        (f"{key}.txt", caption),
    ]


def test_shards(tmp_path):
    for s in range(3):
        kinds = ["jpg", "png", "webp"]
        files = [
            x
            for i in range(3)
            for x in record(f"{s:05d}{i:04d}", f"wörter {s} {i}", (s, i, 0), kinds[i])
        ]
        write_shard(tmp_path / f"{s:05d}.tar", files)
    for pattern, shards in [("*.tar", 3), ("{00000..00002}.tar", 3), ("0000{1..2}.tar", 2)]:
        source = open_source({"kind": "webdataset", "pattern": str(tmp_path / pattern)})
        assert len(source) == 3 * shards and source.class_names is None
        for example in examples(source):
            s, i = int(example["key"][:5]), int(example["key"][5:])
            assert example["captions"] == [f"wörter {s} {i}"]
            with tarfile.open(tmp_path / f"{s:05d}.tar") as tar:
                name = f"{example['key']}.{['jpg', 'png', 'webp'][i]}"
                assert example["image"] == tar.extractfile(name).read()


def test_caption_from_json_alone(tmp_path):
    meta = json.dumps({"alt": "from alt", "caption": "from caption"})
    write_shard(tmp_path / "a.tar", [("d/1.png", picture()), ("d/1.json", meta)])
    config = {"kind": "webdataset", "pattern": str(tmp_path / "a.tar")}
    source = open_source(config)
    assert source[0]["captions"] == ["from caption"] and source[0]["key"] == "d/1"
    assert open_source({**config, "caption_key": "alt"})[0]["captions"] == ["from alt"]


def test_index_is_cached_until_the_shard_changes(tmp_path, monkeypatch):
    path = tmp_path / "a.tar"
    write_shard(path, record("1", "one", (1, 1, 1)))
    config = {"kind": "webdataset", "pattern": str(path)}
    first = examples(open_source(config))
    read = []
    index_shard = build.index_shard
    monkeypatch.setattr(build, "index_shard", lambda *a: read.append(1) or index_shard(*a))
    assert examples(open_source(config)) == first and read == []
    write_shard(path, record("1", "one", (1, 1, 1)) + record("2", "two", (2, 2, 2)))
    assert [e["key"] for e in examples(open_source(config))] == ["1", "2"] and read == [1]


def test_shard_errors(tmp_path):
    with pytest.raises(ValueError, match="There is no shard .*00001.tar"):
        write_shard(tmp_path / "00000.tar", record("1", "one", (1, 1, 1)))
        open_source({"kind": "webdataset", "pattern": str(tmp_path / "{00000..00001}.tar")})
    with pytest.raises(ValueError, match=r"is a folder: set pattern to its shards, '.*/\*.tar'"):
        open_source({"kind": "webdataset", "pattern": str(tmp_path)})
    with pytest.raises(ValueError, match="runs backwards"):
        open_source({"kind": "webdataset", "pattern": str(tmp_path / "{3..1}.tar")})
    whole = (tmp_path / "00000.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:700])
    with pytest.raises(ValueError, match="shard .*cut.tar cannot be read"):
        open_source({"kind": "webdataset", "pattern": str(tmp_path / "cut.tar")})
    write_shard(tmp_path / "empty.tar", [])
    with pytest.raises(ValueError, match="are empty"):
        open_source({"kind": "webdataset", "pattern": str(tmp_path / "empty.tar")})


def test_files_of_shards_that_are_not_read_are_said(tmp_path, caplog):
    junk = [("1.heic", b"x"), ("1.txt", "one"), ("__MACOSX/._2.jpg", b"x"), ("LICENSE", b"x")]
    write_shard(tmp_path / "a.tar", [*junk, *record("2", "two", (1, 1, 1))])
    config = {"kind": "webdataset", "pattern": str(tmp_path / "a.tar"), "max_bad_records": 1}
    for _ in range(2):  # the second time from the cache
        assert [e["key"] for e in examples(open_source(config))] == ["2"]
        assert (
            f"{tmp_path / 'a.tar'}: skipped 1 .heic (no image formats that are read), 1 hidden "
            "files, 1 files without an extension"
        ) in caplog.messages
        caplog.clear()


def test_keys_of_shards_that_are_not_utf8(tmp_path):
    with tarfile.open(
        tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1"
    ) as tar:
        for name, data in (("caf\xe9.png", picture()), ("caf\xe9.txt", b"one")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    config = {"kind": "webdataset", "pattern": str(tmp_path / "a.tar")}
    for _ in range(2):
        (example,) = examples(open_source(config))
        assert example["key"] == r"caf\udce9" and example["image"] == picture()
