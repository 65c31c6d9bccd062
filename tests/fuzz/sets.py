"""Fuzzed readers of data sets: shards, caption files, annotation files, run-length encodings."""

import io
import json
import tarfile

import numpy as np
from PIL import Image

from mmjax import zero_shot_calibration
from mmjax.data import rle
from mmjax.data.builders import archive, image_folder
from mmjax.data.image_files import Skipped
from mmjax.data.sources import captions
from mmjax.data.sources.coco import open_coco
from mmjax.data.sources.folder import open_folder
from mmjax.data.sources.recordings import open_recordings
from mmjax.data.sources.refcoco import open_refcoco
from mmjax.data.sources.sa1b import open_sa1b
from mmjax.data.sources.visual_genome import open_visual_genome
from mmjax.data.sources.webdataset import open_shards
from tests.fuzz.reader import Reader, Seed

WIDTH, HEIGHT = 12, 9
LONG = "a/" * 60 + "long name.jpg"  # in no header of 100 bytes


def photo() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (9, 99, 200)).save(file, "JPEG")
    return file.getvalue()


def shard_files() -> list[bytes]:
    """Shards of a few records in each form of tar."""
    found = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        names = [f"{i:04}" for i in range(3)]
        names += [] if form == tarfile.USTAR_FORMAT else [LONG.removesuffix(".jpg"), "grün"]
        with tarfile.open(fileobj=file, mode="w", format=form) as tar:
            for name in names:
                for suffix, data in (
                    ("jpg", photo()),
                    ("txt", b"a caption"),
                    ("json", b'{"caption": "b"}'),
                ):
                    member = tarfile.TarInfo(f"{name}.{suffix}")
                    member.size = len(data)
                    if form == tarfile.PAX_FORMAT:
                        member.mtime = 1.5  # as the webdataset library: a pax header of the time
                    if form == tarfile.PAX_FORMAT and suffix == "jpg":
                        member.pax_headers = {"size": str(len(data)), "comment": "é" * 40}
                    tar.addfile(member, io.BytesIO(data))
        found.append(file.getvalue())
    return found


def _shards(folder) -> list[Seed]:
    return [Seed(data, repaired=_summed) for data in shard_files()]


def _archives(folder) -> list[Seed]:
    """Archives of image folders, compressed in every way."""
    seeds = []
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=mode, format=tarfile.PAX_FORMAT) as tar:
            for name in ("train/cat/0.jpg", "train/dog/ü.jpg", "test/cat/1.jpg"):
                member = tarfile.TarInfo(f"set/{name}")
                member.size, member.mtime = len(photo()), 1.5
                tar.addfile(member, io.BytesIO(photo()))
        seeds.append(Seed(file.getvalue(), repaired=_summed if mode == "w" else bytes))
    return seeds


def _read_archive(data: bytes, seed: Seed, folder) -> None:
    path, refused = folder / "a.tar", None
    path.write_bytes(data)
    for read in (_each_file, _each_image):
        try:
            read(path)
        except ValueError as error:
            refused = error
    if refused is not None:
        raise refused


def _each_file(path) -> None:
    list(archive.files(path, ".jpg", "get it again"))


def _each_image(path) -> None:
    for *_, read in image_folder._in_archive(path, Skipped()):
        read()


def _summed(data: bytes) -> bytes:
    """With the checksums of all blocks that look like headers."""
    changed = bytearray(data)
    for at in range(0, len(data) - 511, 512):
        if data[at + 257 : at + 262] == b"ustar":
            block = changed[at : at + 512]
            block[148:156] = b" " * 8
            changed[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    return bytes(changed)


def _read_shard(data: bytes, seed: Seed, folder) -> None:
    path = folder / "0.tar"
    path.write_bytes(data)
    source = open_shards(str(path), max_bad_records=1.0, data_dir=folder, workdir=folder)
    for i in range(len(source)):
        source[i]


ROWS = [{"file_name": f"{i}.jpg", "caption": f"a {i}, ü"} for i in range(4)]
COCO_CAPTIONS = {
    "images": [{"id": i, "file_name": row["file_name"]} for i, row in enumerate(ROWS)],
    "annotations": [{"id": i, "image_id": i, "caption": f"a {i}"} for i in range(4)],
}


def _captions(folder) -> list[Seed]:
    for row in ROWS:
        (folder / row["file_name"]).write_bytes(photo())
    lines = [json.dumps(row) for row in ROWS]
    tables = {
        "captions.csv": "file_name,caption\n"
        + "".join(f'{i}.jpg,"a ""b"", c"\n' for i in range(4)),
        "captions.tsv": "filepath\ttitle\r\n" + "".join(f"{i}.jpg\ta\r\n" for i in range(4)),
        "captions.txt": "".join(f"{i}.jpg#0\ta\n{i}.jpg#1\tb\n" for i in range(4)),
        "results.csv": "image_name| comment_number| comment\n"
        + "".join(f"{i}.jpg| 0| a\n" for i in range(4)),
        "captions.jsonl": "\n".join(lines),
    }
    seeds = [Seed(text.encode(), name) for name, text in tables.items()]
    seeds += [
        Seed(json.dumps(tree).encode(), "captions.json", True) for tree in (ROWS, COCO_CAPTIONS)
    ]
    # One line of a .jsonl is a JSON file.
    return seeds + [Seed(lines[0].encode(), "captions.jsonl", True)]


def _read_captions(data: bytes, seed: Seed, folder) -> None:
    (folder / seed.about).write_bytes(data)
    refused = None
    for opened in (open_folder, open_recordings):
        try:
            source = opened(
                folder, seed.about, max_bad_records=1.0, data_dir=folder, workdir=folder
            )
            for i in range(len(source)):
                source[i]
        except ValueError as error:
            refused = error
    captions.read_captions(folder / seed.about)
    if refused is not None:
        raise refused


def _annotation(i: int) -> dict:
    box = [1.0, 2.0, 6.0, 5.0]
    runs = rle.from_polygon([1, 2, 7, 2, 7, 7, 1, 7], HEIGHT, WIDTH)
    masks = (
        [[1, 2, 7, 2, 7, 7, 1, 7]],
        {"size": [HEIGHT, WIDTH], "counts": runs.counts.tolist()},
        {"size": [HEIGHT, WIDTH], "counts": rle.to_string(runs)},
    )
    return {
        "id": i,
        "image_id": i % 3,
        "category_id": 5 + i % 2,
        "bbox": box,
        "area": 20.5,
        "iscrowd": int(i == 1),
        "segmentation": masks[i % 3],
    }


def _coco_tree() -> dict:
    image = {"height": HEIGHT, "width": WIDTH}
    lvis = {"neg_category_ids": [5], "not_exhaustive_category_ids": [6]}
    return {
        "images": [
            {"id": 0, "file_name": "0.jpg", **image},
            {"id": 1, "coco_url": "http://example.org/val/1.jpg", **image, **lvis},
            {"id": 2, "file_name": "2.jpg", **image, **lvis},
        ],
        "annotations": [_annotation(i) for i in range(6)],
        "categories": [
            {"id": 5, "name": "cat", "frequency": "r"},
            {"id": 6, "name": "dog", "frequency": "f"},
        ],
    }


def _write_photos(folder) -> None:
    (folder / "val").mkdir(exist_ok=True)
    for name in ("0.jpg", "val/1.jpg", "2.jpg", "sa_1.jpg"):
        (folder / name).write_bytes(photo())


def _annotations(folder) -> list[Seed]:
    _write_photos(folder)
    coco = _coco_tree()
    refs = [
        {"ann_id": i, "image_id": i % 3, "split": "val", "sentences": [{"sent": "the left one"}]}
        for i in (0, 2, 3)
    ]
    region = {"region_id": 1, "x": 1, "y": 1, "width": 3, "height": 4, "phrase": "a dog"}
    seen = {"object_id": 1, "x": 1, "y": 1, "w": 3, "h": 4, "names": ["dog"]}
    sizes = [{"image_id": 0, "width": WIDTH, "height": HEIGHT}]
    sa1b = {"image": {"height": HEIGHT, "width": WIDTH}}
    sa1b["annotations"] = [{"segmentation": _annotation(2)["segmentation"]}]
    trees = {
        "coco.json": coco,
        "refs.json": refs,
        "instances.json": coco,
        "regions.json": [{"image_id": 0, "regions": [region]}],
        "objects.json": [{"image_id": 0, "objects": [seen]}],
        "sizes.json": sizes,
        "sa_1.json": sa1b,
    }
    for name, tree in trees.items():
        (folder / name).write_text(json.dumps(tree))
    return [Seed(json.dumps(tree).encode(), name, True) for name, tree in trees.items()]


def _read_annotations(data: bytes, seed: Seed, folder) -> None:
    name = seed.about
    (folder / name).write_bytes(data)
    given = {"max_bad_records": 1.0, "data_dir": folder, "workdir": folder}
    try:
        if name == "coco.json":
            source = open_coco(folder / name, folder, **given)
        elif name in ("refs.json", "instances.json"):
            files = folder / "refs.json", folder / "instances.json"
            source = open_refcoco(*files, folder, "val", **given)
        elif name == "sa_1.json":
            source = open_sa1b(folder, **given)
        else:
            listed = folder / ("regions.json" if name == "sizes.json" else name)
            source = open_visual_genome(listed, folder / "sizes.json", folder, **given)
        for i in range(len(source)):
            regions = source[i]["regions"]
            for k in range(len(regions)):
                if regions.segments[k] is not None:
                    rle.decode(regions.mask(k))
    finally:
        (folder / name).write_bytes(seed.data)


def _runs(folder) -> list[Seed]:
    mask = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.3
    runs = rle.encode(mask)
    polygon = [[1.5, 2, 7, 2, 7, 7.25, 1, 7], [0, 0, 5, 0, 5, 5]]
    counts = {"size": [HEIGHT, WIDTH], "counts": runs.counts.tolist()}
    seeds = [Seed(rle.to_string(runs).encode())]
    return seeds + [Seed(json.dumps(tree).encode(), "tree", True) for tree in (polygon, counts)]


def _read_runs(data: bytes, seed: Seed, folder) -> None:
    if seed.about is None:
        found = rle.from_string(data, HEIGHT, WIDTH)
    else:
        try:
            tree = json.loads(data)
        except (ValueError, RecursionError):  # no file, but a part of one that was parsed
            return
        found = rle.from_segmentation(tree, HEIGHT, WIDTH)
    rle.decode(found)
    rle.box(found)
    rle.iou([found], [found], [True])


def _calibrations(folder) -> list[Seed]:
    about = {"model": "abc", "labels": ["dog", "cat"], "templates": ["{}"]}
    given = {"temperature": 2.0, "threshold": 0.7, "coverage": 0.8, "examples": 9, **about}
    return [Seed(json.dumps(given).encode(), tree=tree) for tree in (True, False)]


def _read_calibration(data: bytes, seed: Seed, folder) -> None:
    (folder / "calibration.json").write_bytes(data)
    found = zero_shot_calibration.load(folder / "calibration.json")
    assert np.isfinite(found.probabilities(np.array([[3.0, -1.0]]))).all()
    found.check("abc", ["dog", "cat"], ["{}"])


READERS = {
    "calibration": Reader(_calibrations, _read_calibration, 400),
    "archive": Reader(_archives, _read_archive, 150),
    "tar": Reader(_shards, _read_shard, 60),
    "captions": Reader(_captions, _read_captions, 80),
    "annotations": Reader(_annotations, _read_annotations, 200),
    "rle": Reader(_runs, _read_runs, 600),
}
