"""RefCOCO and Visual Genome: phrases with boxes."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from mmjax.data.open_source import open_source


def refcoco(tmp_path, refs, **more):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    data = {
        "images": [{"id": 1, "file_name": "a.png", "height": 30, "width": 40}],
        "annotations": [
            {"id": 5, "image_id": 1, "category_id": 2, "bbox": [4, 3, 8, 6]},
            {"id": 6, "image_id": 1, "category_id": 2, "bbox": [4, 3, 0, 6]},
        ],
        "categories": [{"id": 2, "name": "dog"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(data))
    (tmp_path / "refs.json").write_text(json.dumps(refs))
    return {
        "kind": "refcoco",
        "refs": str(tmp_path / "refs.json"),
        "annotations": str(tmp_path / "instances.json"),
        "images": str(tmp_path),
        "split": "val",
    } | more


def ref(number=5, *sentences, split="val", image=1):
    sentences = [{"sent": s} for s in sentences or ("the dog",)]
    return {"ann_id": number, "image_id": image, "split": split, "sentences": sentences}


def test_an_object_with_its_expressions(tmp_path):
    refs = [ref(5, "left dog", "the small one"), ref(split="train")]
    source = open_source(refcoco(tmp_path, refs), workdir=tmp_path)
    assert len(source) == 1
    meta = source.meta(0)
    assert meta["phrases"] == ["left dog", "the small one"] and source.class_names == ["dog"]
    np.testing.assert_allclose(meta["regions"].boxes, [[0.1, 0.1, 0.3, 0.3]] * 2)
    assert source[0]["image"].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("refs", "message"),
    [
        ([ref(9)], "object 9 of image 1 is not among the annotations"),
        ([ref(6)], "object 6 of image 1 has the empty box"),
        ([ref(5, " ")], "has no sentence"),
        ([ref(split="train")], "has no split 'val'; it has train"),
        ([{"ann_id": 1}], "is no list of objects with ann_id, image_id, split, sentences"),
        ([ref() | {"sentences": [{"sent": 3}]}], "each of which has its text as sent"),
    ],
)
def test_bad_references_are_refused(tmp_path, refs, message):
    with pytest.raises(ValueError, match=message):
        open_source(refcoco(tmp_path, refs), workdir=tmp_path)


def test_a_pickle_is_never_opened(tmp_path):
    config = refcoco(tmp_path, [])
    for protocol in (0, 4):
        (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([ref()], protocol=protocol))
        with pytest.raises(ValueError, match=r"convert the pickle, if you trust"):
            open_source(config | {"refs": str(tmp_path / "refs(unc).p")}, workdir=tmp_path)


def genome(tmp_path, **entry):
    (tmp_path / "VG_100K_2").mkdir(exist_ok=True)
    Image.new("RGB", (40, 30)).save(tmp_path / "VG_100K_2" / "7.jpg")
    (tmp_path / "image_data.json").write_text(
        json.dumps([{"image_id": 7, "width": 40, "height": 30}])
    )
    (tmp_path / "listed.json").write_text(json.dumps([entry]))
    return {
        "kind": "visual_genome",
        "annotations": str(tmp_path / "listed.json"),
        "image_data": str(tmp_path / "image_data.json"),
        "images": str(tmp_path),
    }


BOX = {"x": 4, "y": 3}


def test_regions_and_objects(tmp_path):
    regions = [{"region_id": 1, **BOX, "width": 8, "height": 6, "phrase": " a red bus "}]
    source = open_source(genome(tmp_path, id=7, regions=regions), workdir=tmp_path)
    assert source.meta(0)["phrases"] == ["a red bus"] and source.class_names is None
    np.testing.assert_allclose(source.meta(0)["regions"].boxes, [[0.1, 0.1, 0.3, 0.3]])
    assert source.meta(0)["regions"].labels.tolist() == [-1]
    objects = [
        {"object_id": i, **BOX, "w": 8, "h": 6, "names": [name]}
        for i, name in enumerate(("bus", "arm", "bus"))
    ]
    source = open_source(genome(tmp_path, image_id=7, objects=objects), workdir=tmp_path)
    assert source.class_names == ["arm", "bus"]
    assert source[0]["regions"].labels.tolist() == [1, 0, 1]


def test_bad_regions_are_refused(tmp_path):
    empty = [{"region_id": 1, **BOX, "width": 0, "height": 6, "phrase": "a"}]
    with pytest.raises(ValueError, match="region 1 of image 7 has the empty box"):
        open_source(genome(tmp_path, id=7, regions=empty), workdir=tmp_path)
    silent = [{"region_id": 1, **BOX, "width": 2, "height": 6, "phrase": " "}]
    with pytest.raises(ValueError, match="region 1 of image 7 has no text"):
        open_source(genome(tmp_path, id=7, regions=silent), workdir=tmp_path)
    with pytest.raises(ValueError, match="no 8.jpg in"):
        open_source(genome(tmp_path, id=8, regions=[]), workdir=tmp_path)
    with pytest.raises(ValueError, match="neither regions nor objects"):
        open_source(genome(tmp_path, id=7, attributes=[]), workdir=tmp_path)
