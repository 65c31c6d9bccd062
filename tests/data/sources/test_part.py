"""Parts of a source: what is held out is held out, and nothing is lost."""

import numpy as np
import pytest
from PIL import Image

from mmjax.data.held_out import held_out
from mmjax.data.open_source import KINDS, open_source
from mmjax.data.source import Source
from mmjax.data.sources import part
from mmjax.data.sources.part import open_part


@pytest.fixture
def folder(tmp_path):
    for kind in ("cat", "dog"):
        (tmp_path / "images" / kind).mkdir(parents=True)
        for i in range(10):
            pixels = np.full((4, 4, 3), 10 * i, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / kind / f"{i}.png")
    return {"kind": "folder", "root": str(tmp_path / "images"), "data_dir": str(tmp_path)}


@pytest.mark.parametrize("most", [1 << 24, 5])  # 5: the permutation is computed
def test_parts_share_nothing_and_make_the_whole(folder, most, monkeypatch):
    monkeypatch.setattr(part, "MOST", most)
    parts = [
        open_source({"kind": "part", "source": folder, "start": a, "stop": b})
        for a, b in ((0.0, 0.7), (0.7, 0.9), (0.9, 1.0))
    ]
    keys = [[one[i]["key"] for i in range(len(one))] for one in parts]
    assert [len(k) for k in keys] == [14, 4, 2]
    whole = open_source(folder)
    assert sorted(sum(keys, [])) == sorted(whole[i]["key"] for i in range(20))
    assert {parts[0][i]["label"] for i in range(14)} == {0, 1}  # shuffled
    assert parts[0].class_names == ["cat", "dog"]


def test_an_empty_part_is_refused(folder):
    with pytest.raises(ValueError, match="from 0.99 to 1.0 of 20 examples, which leaves none"):
        open_source({"kind": "part", "source": folder, "start": 0.99})


class Named(Source):
    """Cut-outs of 40 concepts, three of each, and two backgrounds, which have none."""

    class_names = [f"thing {i}" for i in range(40)]
    name = "things"

    def __len__(self):
        return 122

    def meta(self, i):
        if i >= 120:
            return {"background": True, "board": "a"}
        names = {"concept": f"thing {i % 40}", "captions": [f"thing {i % 40}"]}
        return {"label": i % 40, "board": "a", **names}

    def __getitem__(self, i):
        image = np.full((8, 8, 4), 255, np.uint8)
        image[..., 0] = i % 40
        return {**self.meta(i), "image": Image.fromarray(image)}


def test_examples_of_a_concept_stay_together_and_those_of_none_are_in_every_part():
    parts = [open_part(Named(), a, b, by="concept") for a, b in ((0.0, 0.8), (0.8, 1.0))]
    found = [[part.meta(i) for i in range(len(part))] for part in parts]
    concepts = [{x["concept"] for x in part if "concept" in x} for part in found]
    assert [len(c) for c in concepts] == [32, 8] and not concepts[0] & concepts[1]
    assert [len(part) for part in parts] == [3 * 32 + 2, 3 * 8 + 2]
    assert all(sum("background" in x for x in part) == 2 for part in found)
    with pytest.raises(
        ValueError, match="0.999 to 1.0 of 40 values of 'concept', which leaves none"
    ):
        open_part(Named(), 0.999, by="concept")
    for field in ("captions", "absent"):
        with pytest.raises(ValueError, match=f"by='{field}', and in .* no field of numbers or of"):
            open_part(Named(), 0.5, by=field)


@pytest.mark.parametrize("mosaics", [False, True])
def test_scenes_are_held_out_by_the_concepts_of_their_objects(monkeypatch, mosaics):
    monkeypatch.setitem(KINDS, "things", lambda: Named())
    scenes = {"kind": "scenes", "objects": {"kind": "things"}, "count": 60, "size": 32}
    train = scenes | {"per_scene": (1, 2)}
    if mosaics:
        train = {"kind": "mosaics", "source": train, "length": 60, "size": 32}
        train |= {"grids": (1.0,)}
    seen, unseen = (open_source(x) for x in held_out(train, 0.25))
    assert len(seen.class_names) == 30 and len(unseen.class_names) == 10
    assert not set(seen.class_names) & set(unseen.class_names)
    drawn = [
        {source.class_names[k] for i in range(60) for k in source[i]["regions"].labels}
        for source in (seen, unseen)
    ]
    assert drawn[1] == set(unseen.class_names) and drawn[0] <= set(seen.class_names)
    assert unseen.name.startswith("scenes of")


def test_mosaics_of_other_images_cannot_be_held_out(folder):
    train = {"kind": "mosaics", "source": folder, "length": 4, "size": 32}
    with pytest.raises(ValueError, match="hold_out of mosaics would evaluate on images"):
        held_out(train, 0.1)
    with pytest.raises(ValueError, match="hold_out of mosaics would evaluate on images"):
        held_out({**train, "source": 3}, 0.1)
