"""The wesnoth set: names of units, sequences of frames, and the split by folder."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmjax.data.builders import wesnoth
from mmjax.data.open_source import open_source
from mmjax.data.transforms import parse as transforms

CFG = """
[unit_type]
    id=Elvish Archer
    name= _ "Elvish Archer"
    image="units/elves/archer.png"
    description= _ "Elves learn to become
archers. Many of them."
    [attack]
        name=bow
        description=_"bow"
    [/attack]
    [female]
        name= _ "female^Elvish Archer"
        image="units/elves/archer+female.png~RC(magenta>red)"
    [/female]
[/unit_type]
[unit_type]
    name= _ "Elvish Archer King"
    image="units/elves/archer-king.png"
[/unit_type]
"""


def test_units_and_their_animations():
    units = wesnoth.read_units(CFG)
    text = "Elves learn to become archers. Many of them."
    assert units == {
        "elves/archer": ("Elvish Archer", text),
        "elves/archer+female": ("Elvish Archer", text),
        "elves/archer-king": ("Elvish Archer King", ""),
    }
    files = [f"elves/archer-bow-attack{i}.png" for i in (1, 2, 10)]
    files += [f"elves/archer-king-idle-{i}.png" for i in (1, 2, 3)]
    files += [f"elves/archer+female-die{i}.png" for i in (1, 2, 3)]
    files += ["elves/archer-1.png", "elves/archer.png"]
    files += [f"elves/wizard-{i}.png" for i in (1, 2, 3)]
    found = {(x.name, x.action): x for x in wesnoth.animations(files, units)}
    assert set(found) == {
        ("Elvish Archer", "bow attack"),
        ("Elvish Archer King", "idle"),
        ("Elvish Archer", "die"),
    }
    bow = found["Elvish Archer", "bow attack"]
    assert bow.frames == tuple(f"elves/archer-bow-attack{i}.png" for i in (1, 2, 10))
    assert bow.folder == "elves" and bow.description == text


def one(folder, name):
    return wesnoth.Animation(("a",), name, "idle", "", folder)


def test_no_folder_and_no_name_is_in_two_splits():
    folders = [f"folder {i}" for i in range(60)]
    found = [one(folder, f"name {i % 40}") for i, folder in enumerate(folders)]
    parts = wesnoth.split_by_folder(found)
    assert all(parts[name] for name in ("train", "validation", "test"))
    for field in ("folder", "name"):
        sets = [{getattr(x, field) for x in part} for part in parts.values()]
        assert sum(map(len, sets)) == len(set.union(*sets))


def test_the_set_is_built_from_a_tree(tmp_path):
    core = tmp_path / "tree" / wesnoth.FOLDER
    (core / "units").mkdir(parents=True)
    text = []
    for i in range(30):
        folder = core / "images" / "units" / f"race{i}"
        folder.mkdir(parents=True)
        for j in range(1, 4):
            Image.fromarray(np.full((20, 30, 3), 40 * j, np.uint8)).save(folder / f"elf-run{j}.png")
        text.append(f'[unit_type]\nname=_"Elf {i}"\nimage="units/race{i}/elf.png"\n[/unit_type]\n')
    (core / "units" / "all.cfg").write_text("".join(text))
    settings = {"kind": "tfds", "name": "wesnoth", "data_dir": str(tmp_path / "data")}
    source = open_source({**settings, "split": "train", "root": str(tmp_path / "tree")})
    assert "video" not in source.meta(0)
    example = source[0]
    assert example["captions"] == [f"{example['name']}, run"] and example["action"] == "run"
    video = transforms.parse("uniform_frames(3)")(example, None)["video"]
    assert video.shape == (3, 72, 72, 3) and video[0, 0, 0].tolist() == [255] * 3
    assert video[:, 36, 36, 0].tolist() == [40, 80, 120]


def test_the_real_package():
    root = os.environ.get("MMJAX_WESNOTH")
    if not root:
        pytest.skip("set MMJAX_WESNOTH to Debian's wesnoth-1.16-data, unpacked")
    core = Path(root) / wesnoth.FOLDER
    units = {}
    for path in sorted((core / "units").rglob("*.cfg")):
        units = wesnoth.read_units(path.read_text(encoding="utf-8", errors="replace")) | units
    images = core / "images" / "units"
    files = [p.relative_to(images).as_posix() for p in sorted(images.rglob("*.png"))]
    found = wesnoth.animations(files, units)
    assert (len(found), sum(len(x.frames) for x in found)) == (571, 3788)
    sizes = {name: len(part) for name, part in wesnoth.split_by_folder(found).items()}
    assert sizes == {"train": 288, "validation": 74, "test": 209}
