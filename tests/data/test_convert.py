"""Converted sets: the same examples with smaller images, whole or refused, through a real run."""

import argparse
import io
import json
import os
from pathlib import Path

import commands
import numpy as np
import odd_names
import pytest
from PIL import Image
from runs import CONFIG, TRAIN
from written_sets import photo, write_folder, write_tar, write_tfds

from mmjax.data import convert as command
from mmjax.data import record_writer
from mmjax.data.convert import convert
from mmjax.data.open_source import open_source
from mmjax.data.sources.array_records import SHARDS, RecordSource
from mmjax.data.transforms.decode import decode_image
from mmjax.workdir.metrics import read_metrics


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMJAX_DATA_DIR", str(tmp_path / "cache"))


def examples(target):
    source = open_source({"kind": "array_record", "root": str(target)})
    return [source[i] for i in range(len(source))]


def direct(data, short, quality):
    """Pillow alone, from the original, with a JPEG in between unless quality is None."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = min(1, short / min(image.size))
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    if quality:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality, subsampling="4:2:0")
        image = Image.open(out)
    return np.asarray(image)


@pytest.mark.parametrize("write", [write_folder, write_tar, write_tfds])
def test_examples_stay_as_they_are_but_for_the_picture(write, tmp_path, monkeypatch):
    settings = write(tmp_path / "original")
    original = open_source(settings)
    for quality, name in ((90, "jpeg"), (None, "raw")):
        convert(settings, tmp_path / name, size=20, quality=quality, shard_records=2)
        found = examples(tmp_path / name)
        converted = open_source({"kind": "array_record", "root": str(tmp_path / name)})
        assert len(found) == len(original)
        for i, example in enumerate(found):
            before, picture = original[i], example.pop("image")
            with monkeypatch.context() as patch:  # no media are read
                patch.setattr(RecordSource, "__getitem__", None)
                assert converted.meta(i) == example
            expected = direct(before.pop("image"), 20, quality)
            assert example == before
            pixels = decode_image(picture) if quality else picture
            assert pixels.dtype == np.uint8
            np.testing.assert_array_equal(pixels, expected)
    opened = open_source({"kind": "array_record", "root": str(tmp_path / "raw")})
    assert opened.class_names == original.class_names


def test_names_that_are_not_utf8_and_what_is_skipped(tmp_path, caplog):
    """A class, its images and the root; hidden folders and a format that is not read are said."""
    root = os.fsdecode(os.path.join(os.fsencode(tmp_path), odd_names.NOT_UTF8))
    try:
        for name in (odd_names.SEPARATED, "plain", ".ipynb_checkpoints"):
            os.makedirs(os.path.join(root, name))
    except OSError:
        pytest.skip("the file system refuses the name")
    image = odd_names.NOT_UTF8 + b".tif"
    odd_names.write(os.path.join(root, odd_names.SEPARATED), photo(1, kind="TIFF"), image)
    odd_names.write(os.path.join(root, "plain"), photo(2), b"1.png")
    odd_names.write(os.path.join(root, "plain"), b"x", b"1.heic")
    settings = {"kind": "folder", "root": root}
    convert(settings, tmp_path / "made", size=20, quality=90)
    convert(settings, tmp_path / "made", size=20, quality=90)  # the same settings: nothing to do
    source = open_source({"kind": "array_record", "root": str(tmp_path / "made")})
    assert source.class_names == [r"a\u2028b\nc", "plain"]
    assert [source[i]["key"] for i in range(2)] == [r"a\u2028b\nc/caf\udce9.tif", "plain/1.png"]
    assert [source[i]["label"] for i in range(2)] == [0, 1]
    assert "skipped 1 .heic" in caplog.text and "'.ipynb_checkpoints'" in caplog.text


def test_a_small_jpeg_is_kept_byte_for_byte(tmp_path):
    data = photo(0, size=(30, 20), kind="JPEG")
    assert command.shrink(data, 20, 50) is data
    assert command.shrink(data, 19, 50) != data
    assert len(command.shrink(photo(0), 40, 50)) < len(command.shrink(photo(0), 40, 95))


def test_what_was_stopped_goes_on_and_is_not_read_before_it_is_whole(tmp_path, monkeypatch):
    settings, how = write_folder(tmp_path / "original"), {"size": 20, "quality": 90}
    convert(settings, tmp_path / "undisturbed", **how, shard_records=3)
    target, record, seen = tmp_path / "target", command._record, []

    def stops_at_the_sixth(source, index, *rest):
        seen.append(index)
        if index == 5 and len(seen) < 10:
            raise KeyboardInterrupt
        return record(source, index, *rest)

    monkeypatch.setattr(command, "_record", stops_at_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        convert(settings, target, **how, shard_records=3)
    with (target / SHARDS).open("a") as file:
        file.write('{"name": "00001')  # as a kill leaves it
    assert (target / "00001-of-00003.array_record.partial").exists()
    with pytest.raises(ValueError, match="has 1 of 3 shards.*writes it again"):
        examples(target)
    seen[:] = range(-10, 0)
    convert(settings, target, **how, shard_records=3)
    assert seen[10:] == [3, 4, 5, 6]  # those of the first shard are not made again
    assert examples(target) == examples(tmp_path / "undisturbed")
    assert not list(target.glob("*.partial"))
    seen.clear()
    convert(settings, target, **how, shard_records=3)
    assert not seen


def test_bad_records_are_counted_listed_and_limited(tmp_path, monkeypatch):
    def open_and_damage(settings, **kwargs):
        source = open_source(settings, **kwargs)
        Path(settings["root"], "2.png").write_bytes(photo(2)[:90])
        Path(settings["root"], "3.png").unlink()
        return source

    monkeypatch.setattr(command, "open_source", open_and_damage)
    how, target = {"size": 20, "quality": 90, "shard_records": 3}, tmp_path / "target"
    settings = write_folder(tmp_path / "one allowed") | {"max_bad_records": 1}
    with pytest.raises(ValueError, match="2 bad records of 7, and max_bad_records = 1 allows 1"):
        convert(settings, tmp_path / "refused", **how)
    settings = write_folder(tmp_path / "two allowed") | {"max_bad_records": 2}
    convert(settings, target, **how)
    assert [e["key"] for e in examples(target)] == [f"{i}.png" for i in (0, 1, 4, 5, 6)]
    lines = (target / "bad_records.jsonl").read_text().splitlines()
    found = [(row["key"], row["kind"]) for row in map(json.loads, lines)]
    assert found == [("2.png", "unreadable_image"), ("number 3", "missing_file")]
    record_writer._check_files(target, ())  # no file that it would take for another one's


def test_a_target_that_holds_something_else_is_refused(tmp_path):
    settings = write_folder(tmp_path / "original")
    how = {"size": 20, "quality": 90}
    with pytest.raises(ValueError, match="holds something else, .*: give a --target"):
        convert(settings, tmp_path / "original", **how)
    convert(settings, tmp_path / "target", **how)
    with pytest.raises(ValueError, match="with size = 20, and now it is 21"):
        convert(settings, tmp_path / "target", size=21, quality=90)
    (shard,) = (tmp_path / "target").glob("*.array_record")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=f"{shard.name} has .* bytes and was written with"):
        examples(tmp_path / "target")
    shard.unlink()
    with pytest.raises(ValueError, match=f"{shard.name} is missing"):
        examples(tmp_path / "target")
    with pytest.raises(ValueError, match="There is no .*dataset.json"):
        examples(tmp_path / "original")


def test_a_source_that_the_config_lacks_is_refused(monkeypatch):
    flags = argparse.Namespace(config=str(CONFIG), overrides=[], source="data.test")
    monkeypatch.setattr(command, "ARGS", flags, raising=False)
    with pytest.raises(ValueError, match="no source 'data.test'; it has data.train, evals.all.sou"):
        command.main()


def test_a_converted_set_trains(tmp_path):
    """The real commands, one after the other."""
    write_folder(tmp_path / "original", count=16)
    target, workdir = tmp_path / "target", tmp_path / "run"
    convert = ["-m", "mmjax.data.convert", f"--config={CONFIG}"]
    settings = f"--config.data.train.root={tmp_path / 'original'}"
    done = commands.run(*convert, f"--target={target}", "--size=16", settings)
    assert done.returncode == 0, done.stderr
    assert f"{target}: 16 examples, 1 shards" in done.stdout
    source = done.stdout.splitlines()[-1]
    flags = [f"--config.data.train={source}", "--config.evals={}", "--config.total_steps=2"]
    done = commands.run(*TRAIN, f"--workdir={workdir}", *flags)
    assert done.returncode == 0, done.stderr
    assert [r["step"] for r in read_metrics(workdir) if "train/loss" in r] == [1, 2]
