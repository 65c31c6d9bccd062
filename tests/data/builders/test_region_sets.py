"""Boards of ktuberling, maps of kgeography, and scenes, from small trees."""

import gzip
import io

import numpy as np
import pytest
from PIL import Image

from mmjax.data import rle
from mmjax.data.builders.kgeography import family, part_of
from mmjax.data.builders.ktuberling import BOARDS
from mmjax.data.builders.svg_parts import read_svg, render_element
from mmjax.data.open_source import open_source
from mmjax.data.source import Source
from mmjax.data.sources.scenes import Scenes, open_scenes

pytest.importorskip("resvg_py", reason="needs the extra mmjax[emoji]")

# A page of 40 x 30 with a blue background, and beside it a red square and an ellipse.
BOARD = """<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30">
<defs><linearGradient id="paint"><stop stop-color="#f00"/></linearGradient></defs>
<g transform="translate(10, 0)">
  <g id="background"><rect x="-10" width="40" height="30" fill="#00f"/></g>
  <rect id="square" x="40" y="-8" width="6" height="6" fill="url(#paint)"/>
  <g id="round"><ellipse cx="-20" cy="20" rx="4" ry="2" fill="#0f0"/></g>
  <path id="nothing" d=""/>
</g></svg>"""


def test_an_element_is_drawn_alone_wherever_it_is(tmp_path):
    (tmp_path / "board.svgz").write_bytes(gzip.compress(BOARD.encode()))
    root = read_svg(tmp_path / "board.svgz")
    square = np.asarray(render_element(root, "square", 60))
    assert square.shape[1:] == (60, 4) and abs(square.shape[0] - 60) <= 1
    assert (np.abs(square[2:-2, 2:-2].astype(int) - [255, 0, 0, 255]) <= 3).all()
    round_ = np.asarray(render_element(root, "round", 80))
    assert round_.shape[1] == 80 and abs(round_.shape[0] - 40) <= 1
    inside = (round_[..., 3] > 127).mean()
    assert abs(inside - np.pi / 4) < 0.02  # of its box
    assert render_element(root, "nothing", 60) is None
    with pytest.raises(ValueError, match="has no element 'missing'"):
        render_element(root, "missing", 60)


@pytest.fixture(scope="module")
def boards(tmp_path_factory):
    tree = tmp_path_factory.mktemp("boards")
    for board, prefix in BOARDS.items():
        (tree / f"{board}.svg").write_text(BOARD)
        (tree / f"{board}.theme").write_text(
            f'<playground gameboard="{board}.svg" bgcolor="#fff">'
            f'<object name="square" sound="{prefix}fire_engine"/>'
            f'<object name="round" sound="{prefix}egg" scale="2"/>'
            f'<object name="round" sound="{prefix}egg"/></playground>'
        )
    where = {"root": str(tree), "data_dir": str(tmp_path_factory.mktemp("data"))}
    return {"kind": "tfds", "name": "ktuberling", **where}


def test_boards_are_splits(boards):
    source = open_source(boards | {"split": "potato_game"})
    assert source.class_names == ["egg", "fire engine"]
    assert [source.meta(i)["label"] for i in range(len(source))] == [-1, 1, 0]
    assert [source.meta(i)["background"] for i in range(len(source))] == [True, False, False]
    image = Image.open(io.BytesIO(source[1]["image"]))
    assert max(image.size) == 160 and image.mode == "RGBA"
    assert len(open_source(boards | {"split": "all-egypt"})) == 3 * 9


def test_scenes_show_each_object_where_its_mask_is(boards):
    objects = open_source(boards | {"split": "egypt+moon"})
    config = {"kind": "scenes", "objects": boards | {"split": "egypt+moon"}, "count": 30}
    source = open_source(config | {"size": 96, "per_scene": (2, 3)})
    assert source.class_names == objects.class_names and len(source) == 30
    colors = {0: [0, 255, 0], 1: [255, 0, 0]}
    for i in range(30):
        example = source[i]
        regions = example["regions"]
        assert 1 <= len(regions) <= 3 and example["image"].shape == (96, 96, 3)
        for n, label in enumerate(regions.labels):
            mask = rle.decode(regions.mask(n))
            shown = example["image"][mask]
            # Edges are blended with what is behind.
            assert (np.abs(shown.astype(int) - colors[int(label)]).max(-1) < 130).mean() > 0.9
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose(regions.boxes[n] * 96, box)
        covered = sum(rle.decode(regions.mask(n)).astype(int) for n in range(len(regions)))
        assert covered.max() == 1  # every pixel is of the topmost object
    again = open_source(config | {"size": 96, "per_scene": (2, 3)})
    assert np.array_equal(again[7]["image"], source[7]["image"])
    other = open_source(config | {"size": 96, "per_scene": (2, 3), "seed": 1})
    assert not np.array_equal(other[7]["image"], source[7]["image"])


class Cutouts(Source):
    name, class_names = "cutouts", None

    def __len__(self):
        return 2

    def __getitem__(self, i):
        image = np.zeros((20, 10, 4), np.uint8)
        image[5:15] = [255, 0, 0, 255]
        return {"image": image, "concept": ["hat", "cat"][i]}


def test_scenes_without_boards_have_a_gradient_behind():
    source = open_scenes(Cutouts(), 3, size=64, name_key="concept", per_scene=(2, 2))
    assert source.class_names == ["cat", "hat"]
    example = source[0]
    assert sorted(example["regions"].labels) == [0, 1]
    assert np.unique(example["image"].reshape(-1, 3), axis=0).shape[0] > 50
    with pytest.raises(ValueError, match="cutouts has no class names for its objects: set"):
        open_scenes(Cutouts(), 3)
    with pytest.raises(ValueError, match="per_scene is"):
        open_scenes(Cutouts(), 3, name_key="concept", per_scene=(3, 2))
    with pytest.raises(ValueError, match="count is 0"):
        open_scenes(Cutouts(), 0, name_key="concept")
    with pytest.raises(IndexError):
        source[3]
    assert isinstance(source, Scenes)


DIVISION = """<division><name>{}</name>{}<color><red>{}</red><green>{}</green><blue>0</blue>
</color></division>"""


def test_maps_have_a_mask_for_each_color(tmp_path):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[2:8, 3:13] = [200, 0, 0]
    pixels[10:18, 5:25] = [0, 100, 0]
    stems = ["france", "france_regions", *(f"country{i}" for i in range(12))]
    for stem in stems:
        Image.fromarray(pixels).save(tmp_path / f"{stem}.png")
        divisions = [
            DIVISION.format("Border", "<ignore>yes</ignore>", 0, 0),
            DIVISION.format("West", "", 200, 0),
            DIVISION.format("East", "<ignore>allowClickMode</ignore>", 0, 100),
            DIVISION.format("Nowhere", "<ignore>no</ignore>", 9, 9),
        ]
        (tmp_path / f"{stem}.kgm").write_text(
            f"<map><mapFile>{stem}.png</mapFile><name>{stem.title()}</name>"
            f"{''.join(divisions)}</map>"
        )
    config = {"kind": "tfds", "name": "kgeography", "root": str(tmp_path)}
    config |= {"data_dir": str(tmp_path / "data")}
    parts = {p: open_source(config | {"split": p}) for p in ("train", "validation", "test")}
    maps = {p: {s.meta(i)["map"] for i in range(len(s))} for p, s in parts.items()}
    assert sum(len(m) for m in maps.values()) == len(stems) == len(set().union(*maps.values()))
    assert all({part_of(stem) for stem in m} == {part} for part, m in maps.items() if m)
    source = parts["train"]
    assert source.class_names == ["East", "West"]
    regions = source[0]["regions"]
    assert [source.class_names[i] for i in regions.labels] == ["West", "East"]
    np.testing.assert_allclose(regions.boxes[0] * [30, 20, 30, 20], [3, 2, 13, 8])
    assert rle.decode(regions.mask(1)).sum() == 160
    assert family("france_regions") == family("france") == "france"
    assert family("waters_world-class") == family("europe") == "world"
    assert family("republic_of_ireland") == family("ireland_provinces")
