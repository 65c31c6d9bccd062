"""Files that vanish after their source was opened: named, and passed over only if allowed."""

import logging
import tarfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tiny_clip import write_folder

from mmjax import config as configs
from mmjax.data import pipeline
from mmjax.data.open_source import open_source
from mmjax.data.sources.tfds import TfdsSource
from mmjax.run import data_manifest


def epoch(source, limit, batch_size=4):
    batches = pipeline.train_batches(
        source,
        lambda example, rng: {"size": len(example["image"])},
        batch_size=batch_size,
        seed=0,
        max_lost_records=limit,
    )
    return [next(batches)["example_id"].tolist() for _ in range(len(source) // batch_size)]


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "data")
    return open_source({"kind": "folder", "root": str(tmp_path / "data")}, workdir=tmp_path)


def test_a_picture_that_vanishes_stops_the_run_by_name(folder, tmp_path):
    (tmp_path / "data" / "007.png").unlink()
    with pytest.raises(ValueError) as error:
        epoch(folder, limit=0)
    for words in ("007.png", "No such file", "config.data.max_lost_records = 0"):
        assert words in str(error.value)


def test_where_it_is_allowed_the_next_record_takes_its_place(folder, tmp_path, caplog):
    before = epoch(folder, limit=0)
    (tmp_path / "data" / "007.png").unlink()
    (tmp_path / "data" / "008.png").unlink()
    with caplog.at_level(logging.WARNING):
        after = epoch(folder, limit=2)
    assert "007.png" in caplog.text or "008.png" in caplog.text
    swap = {7: 9, 8: 9}
    assert after == [[swap.get(i, i) for i in batch] for batch in before]
    with pytest.raises(ValueError, match="2 lost of 24.*allows 1"):
        epoch(folder, limit=1)
    assert epoch(folder, limit=0.1) == after  # a share of 24: two


def test_all_lost_ends_and_does_not_go_round_for_ever(folder, tmp_path):
    for file in (tmp_path / "data").glob("*.png"):
        file.unlink()
    with pytest.raises(ValueError, match="allows 23"):
        epoch(folder, limit=23)


def test_a_set_of_another_size_is_not_gone_on_with_unless_allowed(folder, capsys):
    config = configs.defaults()
    for had, limit, allow, fine in (
        (24, 0, (), True),
        (25, 0, (), False),
        (25, 1, (), True),
        (26, 1, (), False),
        (23, 9, (), False),
        (23, 0, ("seed", "data.train"), True),
    ):
        config.data.max_lost_records = limit
        if fine:
            data_manifest.check_examples(folder, {"examples": had}, config, allow)
            said = f"has 24 examples and had {had} when" in capsys.readouterr().out
            assert said == (had != 24)
        else:
            with pytest.raises(ValueError, match=f"has 24 examples and had {had} .*data.train"):
                data_manifest.check_examples(folder, {"examples": had}, config, allow)
    data_manifest.check_examples(folder, {}, config, ())  # a checkpoint of before this was kept


@pytest.fixture
def shards(tmp_path):
    write_folder(tmp_path / "data", 8)
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for i in range(4 * shard, 4 * shard + 4):
                (tmp_path / "data" / f"{i:03d}.txt").write_text(f"number {i}")
                for end in ("png", "txt"):
                    tar.add(tmp_path / "data" / f"{i:03d}.{end}", f"{i:03d}.{end}")
    settings = {"kind": "webdataset", "pattern": str(tmp_path / "{0..1}.tar")}
    return open_source(settings | {"data_dir": str(tmp_path / "cache")}, workdir=tmp_path)


@pytest.mark.parametrize("how", ["gone", "cut off"])
def test_a_shard_that_vanishes_or_shrinks_is_named(shards, tmp_path, how):
    if how == "gone":
        (tmp_path / "1.tar").unlink()
    else:
        with (tmp_path / "1.tar").open("r+") as file:
            file.truncate(600)
    with pytest.raises(ValueError, match=r"1\.tar.*max_lost_records"):
        epoch(shards, limit=3)
    assert {i for batch in epoch(shards, limit=4) for i in batch} == {0, 1, 2, 3}


class Numbers(tfds.core.GeneratorBasedBuilder):
    """Four tiny records."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos: ClassVar[dict] = {}
    pkg_dir_path = Path(__file__).parent

    def _info(self):
        features = tfds.features.FeaturesDict({"image": tfds.features.Scalar(np.int64)})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": ((i, {"image": i}) for i in range(4))}

    def _generate_examples(self):
        raise NotImplementedError


def test_a_tfds_shard_that_vanishes_before_its_first_use_is_named(tmp_path):
    builder = Numbers(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    data = builder.as_data_source(split="train")
    source = TfdsSource("numbers/train", data, "image", [], None, None)
    for file in builder.data_path.glob("*array_record*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"array_record.*max_lost_records"):
        epoch(source, limit=0)


def test_an_evaluation_needs_every_example(folder, tmp_path):
    (tmp_path / "data" / "007.png").unlink()
    batches = pipeline.eval_batches(folder, lambda example, rng: {}, batch_size=8)
    with pytest.raises(ValueError, match=r"number 7 .*007\.png.*every example"):
        list(batches)
