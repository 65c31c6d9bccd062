"""What is wrong with the texts and names of shards, and shards with several captions per image."""

import io
import json
import tarfile

import pytest
from flowers import picture

from mmjax.data.open_source import open_source


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMJAX_DATA_DIR", str(tmp_path / "cache"))


def write_shard(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def opened(tmp_path):
    """Opens a shard of these files: captions by key, and (kind, reason) of the bad ones."""

    def open_it(files, **settings):
        write_shard(tmp_path / "00.tar", files)
        config = {"kind": "webdataset", "pattern": str(tmp_path / "00.tar"), "max_bad_records": 9}
        source = open_source({**config, **settings}, workdir=tmp_path / "run")
        for i in range(len(source)):
            assert source[i]["image"] == PNG
        path = tmp_path / "run" / "bad_records.jsonl"
        bad = [json.loads(line) for line in path.open(encoding="utf-8")] if path.exists() else []
        found = {source.meta(i)["key"]: source.meta(i)["captions"] for i in range(len(source))}
        return found, {b["key"]: (b["kind"], b["reason"]) for b in bad}

    return open_it


PNG = picture()
GOOD = {"good.png": PNG, "good.txt": "good"}


def test_a_byte_order_mark_is_no_part_of_a_caption(opened):
    files = {"1.png": PNG, "1.txt": "\ufeffcafé", "2.png": PNG, "2.json": '\ufeff{"caption": "x"}'}
    assert opened(files) == ({"1": ["café"], "2": ["x"]}, {})


def test_texts_that_are_not_utf_8_are_bad_records(opened):
    latin, wide = "a\ncafé".encode("latin-1"), "café".encode("utf-16")
    files = {
        "1.png": PNG,
        "1.txt": latin,
        "2.png": PNG,
        "2.txt": wide,
        "3.png": PNG,
        "3.json": b'{"caption": "' + latin[2:] + b'"}',
        "4.png": PNG,
        "4.json": "{",
        "6.png": PNG,
        "6.json": r'{"caption": "a smile \ud83d"}',
        # What is not read is not judged.
        "5.png": PNG,
        "5.txt": "five",
        "5.json": latin,
    }
    captions, bad = opened(files | GOOD, multiple_captions=False)
    assert captions == {"5": ["five"], "good": ["good"]}
    assert {kind for kind, _ in bad.values()} == {"bad_text"} and set(bad) == set("12346")
    assert "1.txt, line 2, is not UTF-8" in bad["1"][1]
    assert "2.txt is UTF-16" in bad["2"][1]
    assert "3.json, line 1, is not UTF-8" in bad["3"][1]
    assert "4.json is not JSON" in bad["4"][1]
    assert "6.json has half of a surrogate pair" in bad["6"][1]


def test_a_list_of_captions_is_used(opened):
    files = {
        "1.png": PNG,
        "1.json": '{"caption": ["a", " b\\nb ", "", null]}',
        "2.png": PNG,
        "2.json": '["c", "d"]',
        "3.png": PNG,
        "3.json": '{"caption": []}',
    }
    for settings in ({}, {"multiple_captions": True}):
        captions, bad = opened(files, **settings)
        assert captions == {"1": ["a", "b\nb"], "2": ["c", "d"]}
        assert bad["3"][0] == "missing_caption"


def test_names_with_a_dot_collapse_and_each_is_named(opened):
    """The webdataset library's `base_plus_ext("d/22.05.png")` is ("d/22", "05.png")."""
    texts = {"d/22.05": "five", "d/22.06": "six"}
    dotted = {f"{k}.{e}": d for k, text in texts.items() for e, d in (("png", PNG), ("txt", text))}
    captions, bad = opened(dotted | GOOD)
    assert captions == {"good": ["good"]} and set(bad) == {"d/22.05", "d/22.06"}
    kind, reason = bad["d/22.05"]
    assert kind == "dotted_key" and "the file '05.png' of the record 'd/22'" in reason
    # Also where the key itself has an image.
    whole = {"d/22.png": PNG, "d/22.txt": "whole"}
    captions, bad = opened(dotted | whole)
    assert captions == {"d/22": ["whole"]} and set(bad) == {"d/22.05", "d/22.06"}
    with pytest.raises(ValueError, match="2 records whose file names have a dot before the ext"):
        opened(dotted | GOOD, max_bad_records=1)


def test_further_images_of_a_record_are_no_loss(opened):
    files = {"1.png": PNG, "1.seg.png": PNG, "1.txt": "one", "1.depth.png": PNG, "1.seg.json": "{}"}
    assert opened(files) == ({"1": ["one"]}, {})


def test_one_caption_per_line(opened):
    """The layout of CLIP_benchmark's retrieval shards."""
    files = {
        "1.png": PNG,
        "1.txt": "\ufeffa dog\r\n\r\n a red\u2028dog \r\n",
        "2.png": PNG,
        "2.txt": "a cat\na bird\nboth\n",
        "3.png": PNG,
        "3.txt": "a fish\n",
    }
    every = {"1": ["a dog", "a red\u2028dog"], "2": ["a cat", "a bird", "both"], "3": ["a fish"]}
    wanted = r"2 of 3 texts of .*00.tar have several lines, such as that of '1'.*captions=True"
    for _ in range(2):  # the second time from the cached index
        with pytest.raises(ValueError, match=wanted):
            opened(files)
        assert opened(files, multiple_captions=True) == (every, {})
    whole, _ = opened(files, multiple_captions=False)
    assert whole["2"] == ["a cat\na bird\nboth"]
    # A few texts of several lines are ordinary: web captions have them.
    files |= {f"{n}.{e}": d for n in range(4, 8) for e, d in (("png", PNG), ("txt", "x"))}
    assert opened(files)[0]["2"] == ["a cat\na bird\nboth"]
