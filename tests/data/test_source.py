"""`source.meta(i)`: the example without its media, for every kind of source, and nothing read."""

import pytest
from written_sets import write_folder, write_tar, write_tfds

from mmjax.data import convert as command
from mmjax.data import file_list
from mmjax.data.open_source import open_source
from mmjax.data.source import MEDIA
from mmjax.data.sources.memory import InMemory


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMJAX_DATA_DIR", str(tmp_path / "cache"))


def array_record(root):
    settings = write_folder(root)
    command.convert(settings, root / "small", size=20, quality=None)
    return {"kind": "array_record", "root": str(root / "small")}


def by_class(root):
    for name in ("cat", "dog"):
        root.mkdir(exist_ok=True)
        write_folder(root / name, count=3)
        (root / name / "captions.jsonl").unlink()
    return {"kind": "folder", "root": str(root)}


def part(root):
    return {"kind": "part", "source": write_folder(root), "stop": 0.5}


def joined(root):
    root.mkdir()
    return {"kind": "joined", "sources": [by_class(root / "a"), write_folder(root / "b")]}


def paired(root):
    source = by_class(root)
    return {"kind": "paired", "first": source, "second": source, "length": 20}


def balanced(root):
    return {
        "kind": "balanced",
        "source": write_tfds(root) | {"label_key": "kind"},
        "words": 1,
    }


def of_classes(root):
    return (
        write_tfds(root)
        | {"label_key": "title", "classes": ("título 2", "título 0")}
        | {"caption_key": "others"}
    )


KINDS = (
    *(write_folder, write_tar, write_tfds, array_record),
    *(by_class, part, joined, paired, balanced, of_classes),
)


@pytest.mark.parametrize("write", KINDS)
def test_meta_is_the_example_without_its_media(tmp_path, write):
    source = open_source(write(tmp_path / "set"))
    assert len(source) > 1
    for i in range(len(source)):
        example = source[i]
        assert "image" in example
        assert source.meta(i) == {k: v for k, v in example.items() if k not in MEDIA}


@pytest.mark.parametrize("write", KINDS)
def test_the_files_of_a_source_are_listed(tmp_path, write):
    source = open_source(write(tmp_path / "set"))
    files = set(file_list.files_of(source))
    below = {path for path in (tmp_path / "set").rglob("*") if path.is_file()}
    assert files <= below and all(entry.bytes > 0 for entry in file_list.list_files(source))
    media = {path for path in below if path.suffix in (".png", ".tar", ".jsonl")}
    assert files >= media or write in (write_tfds, array_record, balanced, of_classes) and files
    before = file_list.list_files(source)
    for path in list(files)[:1]:
        path.write_bytes(path.read_bytes() + b" ")
    assert " changed (" in file_list.difference(before, file_list.list_files(source))


@pytest.mark.parametrize("write", [write_folder, write_tar, by_class, part, joined, paired])
def test_meta_reads_no_file(tmp_path, write):
    source = open_source(write(tmp_path / "set"))
    wanted = [source.meta(i) for i in range(len(source))]
    for file in (tmp_path / "set").rglob("*.*"):
        file.unlink()
    with pytest.raises(OSError):
        source[0]
    assert [source.meta(i) for i in range(len(source))] == wanted


def test_tfds_skips_the_image(tmp_path):
    source = open_source(write_tfds(tmp_path))
    assert set(source._meta[0]) == {"title", "others", "kind"}


def test_memory_does_not_make_the_example(tmp_path):
    source = open_source(write_folder(tmp_path / "set"))

    def refuse(example, rng):
        raise AssertionError("meta needs no example")

    assert InMemory(source, refuse).meta(2) == source.meta(2)
