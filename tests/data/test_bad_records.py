"""Bad records: each kind counted, listed and skipped up to the limit; one clear error above it."""

import io
import json
import logging
import tarfile
import threading

import pytest
from PIL import Image

from mmjax.data import bad_records
from mmjax.data.bad_records import KINDS, BadRecord, FoundBad, allow
from mmjax.data.open_source import open_source
from mmjax.workdir import jsonl


def picture(color=(10, 20, 30)):
    out = io.BytesIO()
    Image.new("RGB", (6, 4), color).save(out, "PNG")
    return out.getvalue()


# key -> what is wrong with it; ten good records stand beside them
BAD = {
    "torn": "unreadable_image",
    "text": "unreadable_image",
    "silent": "missing_caption",
    "blank": "missing_caption",
    "good0": "duplicate_key",
    "gone": "missing_file",
}


def bad_folder(root):
    root.mkdir()
    rows = []
    for i in range(10):
        (root / f"good{i}.png").write_bytes(picture())
        rows.append({"file_name": f"good{i}.png", "caption": f"good {i}"})
    (root / "torn.png").write_bytes(picture()[:-30])
    (root / "text.png").write_text("this is no image")
    (root / "silent.png").write_bytes(picture())
    (root / "blank.png").write_bytes(picture())
    for name in ("torn", "text", "gone"):
        rows.append({"file_name": f"{name}.png", "caption": name})
    rows.append({"file_name": "blank.png", "caption": "  "})
    rows.append({"file_name": "silent.png"})
    rows.append({"file_name": "good0.png", "caption": "again"})
    lines = "\n".join(json.dumps(row) for row in rows)
    (root / "captions.jsonl").write_text(lines)
    return {"kind": "folder", "root": root}


def bad_shard(root):
    root.mkdir()
    files = []
    for i in range(10):
        files += [(f"good{i}.png", picture()), (f"good{i}.txt", f"good {i}".encode())]
    files += [("torn.png", picture()[:-30]), ("torn.txt", b"torn")]
    files += [("text.png", b"this is no image"), ("text.txt", b"text")]
    files += [("silent.png", picture())]
    files += [("blank.png", picture()), ("blank.txt", b" "), ("blank.json", b'{"caption": null}')]
    files += [("gone.txt", b"gone"), ("gone.json", b"{}")]
    again = [("good0.png", picture()), ("good0.txt", b"again")]
    for shard, content in (("0.tar", files), ("1.tar", again)):
        with tarfile.open(root / shard, "w") as tar:
            for name, data in content:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return {"kind": "webdataset", "pattern": str(root / "*.tar")}


@pytest.fixture(params=[bad_folder, bad_shard])
def config(request, tmp_path):
    return {**request.param(tmp_path / "set"), "data_dir": tmp_path / "cache"}


def listed(workdir):
    return [json.loads(x) for x in (workdir / "bad_records.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("limit", [6, 6 / 16])
def test_every_kind_is_listed_and_skipped(config, tmp_path, caplog, limit):
    with caplog.at_level(logging.WARNING):
        source = open_source({**config, "max_bad_records": limit}, workdir=tmp_path / "run")
    captions = [source[i]["captions"] for i in range(len(source))]
    assert captions == [[f"good {i}"] for i in range(10)]
    lines = listed(tmp_path / "run")
    assert {line["key"].removesuffix(".png"): line["kind"] for line in lines} == BAD
    assert len(lines) == len(BAD) and all(line["reason"] for line in lines)
    assert {line["source"] for line in lines} == {source.name}
    # one line a kind, with its count
    messages = [r.getMessage() for r in caplog.records if r.name.startswith("mmjax")]
    assert len(messages) == len(set(BAD.values()))
    for kind in set(BAD.values()):
        words = KINDS[kind]
        count = list(BAD.values()).count(kind)
        (message,) = [m for m in messages if words in m]
        assert f"skipping {count} {words} of 16" in message


@pytest.mark.parametrize("limit, allowed", [(5, 5), (0, 0), (0.37, 5), (0.01, 0)])
def test_too_many_is_one_clear_error(config, tmp_path, limit, allowed):
    for _ in range(2):  # the second time from the cache
        with pytest.raises(ValueError) as error:
            open_source({**config, "max_bad_records": limit}, workdir=tmp_path / "run")
        message = str(error.value)
        assert "6 bad records of 16" in message and f"allows {allowed}:" in message
        assert "2 unreadable images" in message and "2 records without a caption" in message
        assert str(tmp_path / "run" / "bad_records.jsonl") in message
        assert listed(tmp_path / "run")[0]["key"] in message and "\n" not in message
        assert len(listed(tmp_path / "run")) == 6


def test_the_default_allows_one_in_a_hundred(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    rows = []
    for i in range(200):
        (root / f"{i}.png").write_bytes(picture())
        rows.append({"file_name": f"{i}.png", "caption": "x"})
    for n, name in enumerate(("0.png", "1.png", "2.png"), start=1):
        (root / name).write_bytes(b"no")
        (root / "captions.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        open_it = lambda: open_source({"kind": "folder", "root": root, "data_dir": tmp_path})  # noqa: E731
        if n <= 2:
            assert len(open_it()) == 200 - n
        else:
            with pytest.raises(ValueError, match="3 bad records of 200"):
                open_it()


def test_all_bad_is_an_error_at_any_limit(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    (root / "captions.jsonl").write_text('{"file_name": "a.png", "caption": "x"}')
    with pytest.raises(ValueError, match="no usable record left: all 1 are bad"):
        open_source({"kind": "folder", "root": root, "max_bad_records": 1.0, "data_dir": tmp_path})


def test_the_list_keeps_other_sources_and_drops_what_was_mended(tmp_path):
    one = BadRecord("a", "missing_file", "gone")
    allow([one], 10, 1, "train", tmp_path)
    allow([one, BadRecord("b", "missing_caption", "none")], 10, 2, "eval", tmp_path)
    allow([BadRecord("c", "missing_file", "gone")], 10, 1, "train", tmp_path)
    assert [(x["source"], x["key"]) for x in listed(tmp_path)] == [
        ("eval", "a"),
        ("eval", "b"),
        ("train", "c"),
    ]
    allow([], 10, 0, "eval", tmp_path)
    assert [x["key"] for x in listed(tmp_path)] == ["c"]


def test_no_bad_record_writes_no_list(tmp_path):
    allow([], 10, 0, "train", tmp_path)
    assert not (tmp_path / "bad_records.jsonl").exists()


@pytest.mark.parametrize("limit", [-1, -0.5, 1.5])
def test_bad_limit(tmp_path, limit):
    with pytest.raises(ValueError, match=f"max_bad_records is {limit}"):
        allow([], 10, limit, "train", tmp_path)


def test_every_record_is_one_line_that_reads_back(tmp_path):
    """Keys with line separators, and bytes that are not UTF-8; sources too."""
    keys = ["a\u2028b", "a\nb", "a\x85b", "caf\udce9", "\ud83d", "ü"]
    bad = [BadRecord(key, "missing_file", f"no {key}") for key in keys]
    for source in ("one", "two\u2029\udcff"):
        allow(bad, 10, 10, source, tmp_path)
        allow(bad, 10, 10, source, tmp_path)  # replaces the lines of the first time
    text = (tmp_path / "bad_records.jsonl").read_text()
    assert len(text.splitlines()) == text.count("\n") == 12
    assert [row["key"] for row in jsonl.read(tmp_path / "bad_records.jsonl")] == 2 * keys
    assert "ü" in text  # readable where it can be
    with pytest.raises(ValueError, match=r"the first is 'a\\u2028b' \(no a\\u2028b\)") as error:
        allow(bad, 10, 1, "one", tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_a_list_of_an_earlier_version_is_kept(tmp_path):
    old = {"source": "old", "key": "a\u2028b", "kind": "missing_file", "reason": "gone"}
    line = json.dumps(old, ensure_ascii=False)
    (tmp_path / "bad_records.jsonl").write_text(line + "\n")
    allow([BadRecord("c", "missing_file", "gone")], 10, 1, "new", tmp_path)
    assert [x["source"] for x in jsonl.read(tmp_path / "bad_records.jsonl")] == ["old", "new"]


def test_a_record_found_while_the_list_is_written_stays_in_it(tmp_path, monkeypatch):
    found, write, threads = FoundBad("set", 0, 9, 9, tmp_path), bad_records._write_list, []

    def write_slowly(path, bad, source):
        text = path.read_text()
        late = BadRecord("late", "unreadable_image", "cut off")
        threads.append(threading.Thread(target=found.add, args=(late,)))
        threads[0].start()
        threads[0].join(0.2)
        path.write_text(text)  # as read before
        write(path, bad, source)

    monkeypatch.setattr(bad_records, "_write_list", write_slowly)
    found.add(BadRecord("early", "unreadable_image", "cut off"))
    found.indexed([["indexed", "missing_caption", "none"]], 9, False)
    threads[0].join()
    keys = [row["key"] for row in jsonl.read(tmp_path / "bad_records.jsonl")]
    assert keys == ["early", "indexed", "late"]


def test_bad_records_found_in_windows_are_listed_as_they_double_and_at_the_end(tmp_path):
    found = FoundBad("set", 0, 0, 99, tmp_path)
    bad = [[f"{i}", "missing_caption", "none"] for i in range(7)]
    listed = []
    for number in range(8):
        found.indexed(bad[:number], 100 * number, number == 7)
        listed.append(len(jsonl.read(tmp_path / "bad_records.jsonl")))
    assert listed == [0, 1, 2, 2, 4, 4, 4, 7]


def test_a_list_that_several_write_loses_no_line(tmp_path):
    """Processes that share a disk, and sources of one process: one opens while others read."""
    readers = [FoundBad(f"set{n}", 0, 1000, 1000, tmp_path) for n in range(3)]

    def read(reader):
        for i in range(40):
            reader.add(BadRecord(f"read{i}", "unreadable_image", "torn"))

    def opened(source):
        for _ in range(40):
            allow([BadRecord("first", "missing_file", "gone")], 9, 9, source, tmp_path)

    threads = [threading.Thread(target=read, args=(reader,)) for reader in readers]
    threads += [threading.Thread(target=opened, args=(f"set{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = jsonl.read(tmp_path / "bad_records.jsonl")
    expected = [(f"set{n}", f"read{i}") for n in range(3) for i in range(40)]
    expected += [("set0", "first"), ("set1", "first")]
    assert sorted((row["source"], row["key"]) for row in rows) == sorted(expected)
    allow([], 9, 9, "set0", tmp_path / "clean")
    assert not (tmp_path / "clean").exists()
