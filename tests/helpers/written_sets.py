"""Small sets on disk, one of each kind of source; every function returns the source's config."""

import io
import json
import tarfile

import numpy as np
from flowers import Flowers
from PIL import Image


def photo(seed, size=(60, 40), kind="PNG"):
    """A smooth image, like a photograph."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 6, 3), np.uint8))
    out = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(out, kind)
    return out.getvalue()


def write_folder(root, count=7, **kwargs):
    root.mkdir()
    for i in range(count):
        (root / f"{i}.png").write_bytes(photo(i, **kwargs))
    rows = [{"file_name": f"{i}.png", "captions": [f"ü {i}", f"number {i}"]} for i in range(count)]
    (root / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"kind": "folder", "root": str(root)}


def write_tar(root):
    root.mkdir()
    with tarfile.open(root / "0.tar", "w") as tar:
        for i in range(3):
            for name, data in ((f"{i}.png", photo(i)), (f"{i}.txt", f"ein Täfelchen {i}".encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return {"kind": "webdataset", "pattern": str(root / "0.tar")}


def write_tfds(root):
    Flowers(data_dir=root, file_format="array_record").download_and_prepare()
    names = {"image_key": "photo", "caption_key": ("title", "others"), "label_key": "kind"}
    return {"kind": "tfds", "name": "flowers", "split": "train", "data_dir": str(root), **names}


def write_shard(path, files):
    """A tar of (name, bytes or text)."""
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
