"""SA-1B's images, each with a JSON file of masks."""

import json

import numpy as np
import pytest
from PIL import Image

from mmjax.data import rle
from mmjax.data.open_source import open_source
from mmjax.data.transforms.parse import parse


def written(tmp_path, masks, **more):
    folder = tmp_path / "set" / "sa_000000"
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(folder / "sa_7.jpg")
    annotations = [
        {"segmentation": {"size": [30, 40], "counts": rle.to_string(rle.encode(m))}} for m in masks
    ]
    data = {"image": {"height": 30, "width": 40}, "annotations": annotations} | more
    (folder / "sa_7.json").write_text(json.dumps(data))
    return {"kind": "sa1b", "root": str(tmp_path / "set")}


def test_masks_without_names(tmp_path):
    masks = np.zeros((3, 30, 40), bool)
    masks[0, 5:20, 7] = True  # a column
    masks[1, 10:20, 20:30] = True
    source = open_source(written(tmp_path, masks), workdir=tmp_path)
    assert len(source) == 1 and source.class_names is None
    example = source[0]
    assert example["key"] == "sa_000000/sa_7.jpg"
    np.testing.assert_allclose(
        example["regions"].boxes * [40, 30, 40, 30], [[7, 5, 8, 20], [20, 10, 30, 20]]
    )
    out = parse("decode | regions(3, masks=True)")(example, None)
    assert np.array_equal(out["masks"], masks)  # the empty one is left out
    assert out["box_label"].tolist() == [-1] * 3 and out["boxes_mask"].tolist() == [1, 1, 0]


def test_what_is_missing_or_damaged_is_refused(tmp_path):
    config = written(tmp_path, [])
    Image.new("RGB", (40, 30)).save(tmp_path / "set" / "sa_8.jpg")
    with pytest.raises(ValueError, match="whose file is missing; the first is 'sa_8.jpg'"):
        open_source(config, workdir=tmp_path)
    config |= {"max_bad_records": 1}
    assert len(open_source(config, workdir=tmp_path)) == 1
    written(tmp_path, [], image={"height": 40, "width": 30})
    with pytest.raises(ValueError, match="40x30 pixels, and its annotations are of .* 30x40"):
        open_source(config, workdir=tmp_path)[0]
    written(tmp_path, [], annotations=[{}])
    with pytest.raises(ValueError, match="sa_7.json is no annotation file of SA-1B"):
        open_source(config, workdir=tmp_path)[0]
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="has no .jpg files"):
        open_source(config | {"root": str(tmp_path / "none")}, workdir=tmp_path)


def test_masks_of_most_of_the_image_are_left_out(tmp_path):
    masks = np.ones((2, 30, 40), bool)
    masks[1, :4] = False  # 87 % of the image
    config = written(tmp_path, masks)
    for most, left in ((1.0, 2), (0.9, 1), (0.8, 0)):
        assert len(open_source(config | {"max_area": most})[0]["regions"]) == left
    with pytest.raises(ValueError, match="max_area is 2.0: it is a fraction"):
        open_source(config | {"max_area": 2.0})
