"""Sources: a person's own data by config alone, as the Example contract says."""

import csv
import io
import json
import os

import numpy as np
import odd_names
import pytest
from flowers import Flowers, picture
from PIL import Image
from written_sets import write_shard

from mmjax import config as configs
from mmjax.data import bad_records
from mmjax.data.open_source import open_source, sources_of
from mmjax.data.sources import folder
from mmjax.data.transforms.decode import decode_image, image_suffixes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMJAX_DATA_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def examples(source):
    return [source[i] for i in range(len(source))]


# ---------------------------------------------------------------- the config


def test_unknown_kind_and_settings():
    with pytest.raises(ValueError, match="kind is 'webdata'; it must be"):
        open_source({"kind": "webdata"})
    with pytest.raises(ValueError, match="no setting 'caption'. Did you mean 'captions'"):
        open_source({"kind": "folder", "root": ".", "caption": "x"})
    with pytest.raises(ValueError, match="kind 'folder' needs the setting 'root'"):
        open_source({"kind": "folder"})
    with pytest.raises(ValueError, match="'source' of a source of kind 'part' is 'train'"):
        open_source({"kind": "part", "source": "train"})
    with pytest.raises(ValueError, match="'sources' of a source of kind 'joined' is 'train'"):
        open_source({"kind": "joined", "sources": "train"})
    with pytest.raises(ValueError, match="'mixture' is for training alone, as config.data.train"):
        open_source({"kind": "part", "source": {"kind": "mixture", "parts": {}}})


# ---------------------------------------------------------------- any TFDS set


def test_a_source_of_a_disk_refuses_a_url():
    with pytest.raises(ValueError, match=r"'root' of kind 'folder' is 'gs://b/x'.* reads a disk"):
        open_source({"kind": "folder", "root": "gs://b/x", "captions": "c.csv"})


def test_any_prepared_tfds_set(tmp_path):
    Flowers(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    source = open_source(
        {
            "kind": "tfds",
            "name": "flowers",
            "split": "train",
            "data_dir": tmp_path,
            "image_key": "photo",
            "caption_key": ("title", "others"),
            "label_key": "kind",
        }
    )
    assert source.class_names == ["rose", "lily"] and len(source) == 3
    found = {e["captions"][0]: e for e in examples(source)}
    for i in range(3):
        example = found[f"título {i}"]
        assert example["captions"] == [f"título {i}", f"a{i}", f"b{i}"]
        assert example["image"] == picture((i, 0, 0))
        assert example["label"] == i % 2
    with pytest.raises(ValueError, match="no feature 'image'; it has kind, others, photo, title"):
        open_source({"kind": "tfds", "name": "flowers", "split": "train", "data_dir": tmp_path})
    with pytest.raises(ValueError, match="no split 'test'; it has train"):
        open_source({"kind": "tfds", "name": "flowers", "split": "test", "data_dir": tmp_path})


def test_classes_that_are_text(tmp_path):
    Flowers(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    flowers = {"kind": "tfds", "name": "flowers", "split": "train", "data_dir": tmp_path}
    flowers |= {"image_key": "photo", "label_key": "title", "classes": ("título 2", "título 0")}
    source = open_source(flowers)
    assert len(source) == 2 and source.class_names == ["título 2", "título 0"]
    for example in examples(source):
        assert source.class_names[example["label"]] == f"título {example['others'][0][1]}"
    with pytest.raises(ValueError, match="label_key whose feature is text, and 'kind' is none"):
        open_source(flowers | {"label_key": "kind"})


@pytest.mark.parametrize("name", ["no_such_set", "mnist", "coco_captions"])
def test_tfds_set_that_is_not_there(name, tmp_path):
    with pytest.raises(ValueError, match=f"'{name}'.*array_record"):
        open_source({"kind": "tfds", "name": name, "split": "train", "data_dir": tmp_path})


# ---------------------------------------------------------------- folders


def write_images(root, names):
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture((i, 0, 0), "JPEG" if name.endswith("jpg") else "PNG"))


@pytest.mark.parametrize("column", ["file_name", "image", "filepath"])
@pytest.mark.parametrize("caption", ["caption", "captions", "text"])
def test_folder_with_jsonl(tmp_path, column, caption):
    names = ["a.png", "deep/b.jpg", "ü.png"]
    write_images(tmp_path / "set", names)
    lines = [json.dumps({column: n, caption: f" caption of {n} ", "id": 1}) for n in names]
    (tmp_path / "set" / "captions.jsonl").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    source = open_source({"kind": "folder", "root": str(tmp_path / "set")})
    assert [e["key"] for e in examples(source)] == names
    assert [e["captions"] for e in examples(source)] == [[f"caption of {n}"] for n in names]
    for example in examples(source):
        assert example["image"] == (tmp_path / "set" / example["key"]).read_bytes()
    assert source.class_names is None


def test_folder_with_lists_of_captions(tmp_path):
    write_images(tmp_path, ["a.png"])
    (tmp_path / "captions.jsonl").write_text('{"file_name": "a.png", "captions": ["x", " ", "y"]}')
    assert open_source({"kind": "folder", "root": tmp_path})[0]["captions"] == ["x", "y"]


def test_folder_with_csv_and_named_columns(tmp_path):
    write_images(tmp_path, ["a.png", "b.png"])
    with (tmp_path / "mine.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows(
            [["bild", "titel"], ["a.png", 'one, with "comma"\nand line'], ["b.png", "zwei"]]
        )
    config = {"kind": "folder", "root": tmp_path, "captions": "mine.csv"}
    source = open_source({**config, "image_column": "bild", "caption_column": "titel"})
    captions = [e["captions"] for e in examples(source)]
    assert captions == [['one, with "comma"\nand line'], ["zwei"]]
    with pytest.raises(ValueError, match=r"mine.csv has no caption column 'title'.*bild, titel"):
        open_source({**config, "image_column": "bild", "caption_column": "title"})
    with pytest.raises(ValueError, match="no image column 'file_name' or 'image' or 'filepath'"):
        open_source(config)


def test_folder_by_class(tmp_path):
    root = tmp_path / "set"
    write_images(root, ["train/dog/1.jpg", "train/cat/2.png", "train/dog/3.png"])
    (root / "train" / "dog" / "notes.txt").write_text("no image")
    source = open_source({"kind": "folder", "root": root / "train"})
    assert source.class_names == ["cat", "dog"]
    found = [(e["key"], e["label"]) for e in examples(source)]
    assert found == [("cat/2.png", 0), ("dog/1.jpg", 1), ("dog/3.png", 1)]
    with pytest.raises(ValueError, match=r"is root .*train\?"):
        open_source({"kind": "folder", "root": root})
    write_images(root, ["test/dog/1.jpg"])
    with pytest.raises(ValueError, match=r"below test, train alone, .* is root .*test\?"):
        open_source({"kind": "folder", "root": root})


def image_folder(root):
    """(path, class) of the samples of torchvision's ImageFolder, for .png alone."""
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    for name in classes:
        for place, _, files in sorted(os.walk(root / name, followlinks=True)):
            for file in sorted(files):
                if file.endswith(".png"):
                    yield os.path.relpath(os.path.join(place, file), root), name


def test_folder_by_class_at_any_depth_as_torchvision_reads_it(tmp_path):
    names = ["cat/b.png", "cat/a/z.png", "cat/a-b/y.png", "cat/a/c/x.png", "cat/A.png", "dog/1.png"]
    write_images(tmp_path / "set", names)
    write_images(tmp_path / "elsewhere", ["deep/1.png"])
    (tmp_path / "set" / "fox").symlink_to(tmp_path / "elsewhere")
    source = open_source({"kind": "folder", "root": tmp_path / "set"})
    found = [(e["key"], source.class_names[e["label"]]) for e in examples(source)]
    assert found == list(image_folder(tmp_path / "set")) and len(found) == 7


def test_hidden_and_system_folders_are_no_classes(tmp_path, caplog):
    write_images(tmp_path, ["cat/1.png", "dog/deep/2.png"])
    junk = ["cat/.ipynb_checkpoints/1-checkpoint.png", "cat/._1.png", "__MACOSX/cat/1.png"]
    write_images(tmp_path, [*junk, "dog/@eaDir/2.png", "loose.png"])
    for name in ("cat/notes.txt", "cat/a.heic", "cat/b.HEIC", "cat/LICENSE"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "dog" / "round").symlink_to(tmp_path / "dog")
    source = open_source({"kind": "folder", "root": tmp_path})
    assert source.class_names == ["cat", "dog"]
    assert [(e["key"], e["label"]) for e in examples(source)] == [
        ("cat/1.png", 0),
        ("dog/deep/2.png", 1),
    ]
    (skipped,) = [line for line in caplog.messages if "skipped" in line]
    for said in ("2 .heic", "1 .txt", "1 without a suffix", "1 hidden files", "'__MACOSX'"):
        assert said in skipped
    assert "2 folders '.ipynb_checkpoints'" in skipped and "1 folders '@eaDir'" in skipped
    assert "1 links to folders around them" in skipped
    assert f"{tmp_path}: 1 images beside the class folders have no class" in caplog.messages


def test_a_class_without_images_is_refused_by_name(tmp_path):
    write_images(tmp_path, ["cat/1.png"])
    (tmp_path / "dog").mkdir()
    (tmp_path / "eel").mkdir()
    (tmp_path / "eel" / "1.heic").write_bytes(b"x")
    with pytest.raises(ValueError, match="class folders without images: dog, eel.* 1 .heic"):
        open_source({"kind": "folder", "root": tmp_path})


KINDS = {
    "avif": "AVIF",
    "bmp": "BMP",
    "gif": "GIF",
    "jfif": "JPEG",
    "jpe": "JPEG",
    "jp2": "JPEG2000",
    "png": "PNG",
    "ppm": "PPM",
    "tga": "TGA",
    "tif": "TIFF",
    "tiff": "TIFF",
    "webp": "WEBP",
}


@pytest.mark.parametrize("suffix", KINDS)
def test_what_pillow_reads_is_read(suffix, tmp_path):
    if f".{suffix}" not in image_suffixes():
        pytest.skip(f"this Pillow does not read .{suffix}")
    image = Image.linear_gradient("L").resize((12, 8)).convert("RGB")
    (tmp_path / "set" / "a").mkdir(parents=True)
    image.save(tmp_path / "set" / "a" / f"1.{suffix.upper()}", KINDS[suffix])
    data = (tmp_path / "set" / "a" / f"1.{suffix.upper()}").read_bytes()
    want = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    write_shard(tmp_path / "a.tar", [(f"1.{suffix}", data), ("1.txt", "one")])
    for config in (
        {"kind": "folder", "root": tmp_path / "set"},
        {"kind": "webdataset", "pattern": str(tmp_path / "a.tar")},
    ):
        (example,) = examples(open_source(config))
        np.testing.assert_array_equal(decode_image(example["image"]), want)


def test_names_that_are_not_utf8_or_end_lines(tmp_path, caplog):
    """They open, and their keys are printable: what follows can write and print them."""
    root = tmp_path / "set"
    (root / "cat").mkdir(parents=True)
    for name in (odd_names.NOT_UTF8, odd_names.SEPARATED.encode()):
        odd_names.write(root / "cat", picture(), name + b".png")
    odd_names.write(root / "cat", b"no image", odd_names.NOT_UTF8 + b".jpg")
    config = {"kind": "folder", "root": root, "max_bad_records": 1}
    source = open_source(config, workdir=tmp_path)
    keys = [example["key"] for example in examples(source)]
    assert sorted(keys) == [r"cat/a\u2028b\nc.png", r"cat/caf\udce9.png"]
    assert all(example["image"] == picture() for example in examples(source))
    assert examples(open_source(config, workdir=tmp_path)) == examples(source)  # from the cache
    (line,) = (tmp_path / "bad_records.jsonl").read_text().split("\n")[:-1]
    assert json.loads(line)["key"] == os.fsdecode(b"cat/" + odd_names.NOT_UTF8 + b".jpg")
    assert r"'cat/caf\udce9.jpg'" in caplog.text


def test_a_class_or_a_root_with_such_a_name(tmp_path):
    root = os.path.join(os.fsencode(tmp_path), odd_names.NOT_UTF8)
    try:
        os.makedirs(os.path.join(root, odd_names.NOT_UTF8))
    except OSError:
        pytest.skip("the file system refuses the name")
    odd_names.write(os.fsdecode(os.path.join(root, odd_names.NOT_UTF8)), picture(), b"1.png")
    source = open_source({"kind": "folder", "root": os.fsdecode(root)}, workdir=tmp_path)
    assert source.class_names == [r"caf\udce9"] and source[0]["image"] == picture()


def test_captions_name_such_files(tmp_path):
    name = odd_names.SEPARATED + ".png"
    odd_names.write(tmp_path, picture(), name.encode())
    rows = [{"file_name": name, "caption": "x"}, {"file_name": "\ud800.png", "caption": "y"}]
    rows.append({"file_name": "zero\0.png", "caption": "z"})
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"kind": "folder", "root": tmp_path, "max_bad_records": 2}
    source = open_source(config, workdir=tmp_path)
    assert [e["key"] for e in examples(source)] == [r"a\u2028b\nc.png"]
    lines = (tmp_path / "bad_records.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["\ud800.png", "zero\0.png"]


def test_folder_errors(tmp_path):
    with pytest.raises(ValueError, match="There is no folder"):
        open_source({"kind": "folder", "root": tmp_path / "absent"})
    with pytest.raises(ValueError, match="neither a captions.jsonl"):
        open_source({"kind": "folder", "root": tmp_path})
    with pytest.raises(ValueError, match="no caption file .*c.csv"):
        open_source({"kind": "folder", "root": tmp_path, "captions": "c.csv"})
    (tmp_path / "c.csv").write_text("")
    with pytest.raises(ValueError, match="c.csv is empty"):
        open_source({"kind": "folder", "root": tmp_path, "captions": "c.csv"})
    (tmp_path / "c.jsonl").write_text('{"file_name": "a.png", "caption": "x"}\n{"file')
    with pytest.raises(ValueError, match="c.jsonl, line 2, is not JSON"):
        open_source({"kind": "folder", "root": tmp_path, "captions": "c.jsonl"})


def test_second_opening_of_a_folder_decodes_nothing(tmp_path, monkeypatch):
    write_images(tmp_path / "set", ["x/1.png", "x/2.png"])
    config = {"kind": "folder", "root": tmp_path / "set"}
    first = examples(open_source(config))
    calls = []
    monkeypatch.setattr(folder, "image_fault", lambda data: calls.append(data))
    assert examples(open_source(config)) == first and calls == []
    (tmp_path / "set" / "x" / "3.png").write_bytes(picture())
    assert len(open_source(config)) == 3 and len(calls) == 3


def test_image_fault_agrees_with_pillow():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8))
    for kind in ("JPEG", "PNG", "WEBP"):
        out = io.BytesIO()
        noise.save(out, kind)
        whole = out.getvalue()
        assert bad_records.image_fault(whole) is None
        for cut in (0, 20, len(whole) // 2):
            assert bad_records.image_fault(whole[:cut])
            with pytest.raises((OSError, SyntaxError)):
                Image.open(io.BytesIO(whole[:cut])).load()


def test_sources_are_listed_by_their_places():
    config = configs.defaults()
    config.data.train = {"kind": "folder", "root": "a"}
    config.evals = {"e": {"kind": "knn", "source": {"root": "b"}, "train_source": {"root": "c"}}}
    places = {name: source.root for name, source in sources_of(config).items()}
    assert places == {"data.train": "a", "evals.e.source": "b", "evals.e.train_source": "c"}
    parts = {name: {"source": {"kind": "folder", "root": name}} for name in ("x", "y")}
    config.data.train = {"kind": "mixture", "parts": parts | {"z": {"weight": 1.0}}}
    config.evals = {}
    places = {name: source.root for name, source in sources_of(config).items()}
    assert places == {"data.train.parts.x.source": "x", "data.train.parts.y.source": "y"}
