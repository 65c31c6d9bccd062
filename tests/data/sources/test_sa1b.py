"""SA-1B's images with a JSON file each."""

import json

import numpy as np
import pytest
from PIL import Image

from mmjax.data import rle
from mmjax.data.open_source import open_source
from mmjax.data.transforms.parse import parse


def write(folder, name, masks, size=(30, 40)):
    Image.new("RGB", size[::-1], "gray").save(folder / f"{name}.jpg")
    rows = [
        {"segmentation": {"size": list(m.shape), "counts": rle.to_string(rle.encode(m))}, "id": i}
        for i, m in enumerate(masks)
    ]
    image = {"height": size[0], "width": size[1], "file_name": f"{name}.jpg"}
    (folder / f"{name}.json").write_text(json.dumps({"image": image, "annotations": rows}))


def test_masks_of_most_of_the_image_are_left_out(tmp_path):
    masks = np.zeros((3, 30, 40), bool)
    masks[0, 5:11, 2:12], masks[1], masks[2, 20:, 30:] = True, True, True
    write(tmp_path, "sa_1", masks)
    Image.new("RGB", (9, 9)).save(tmp_path / "alone.jpg")
    source = open_source({"kind": "sa1b", "root": str(tmp_path)})
    assert len(source) == 1 and source.meta(0) == {"key": "sa_1"}
    made = parse("decode | pad_corner(40) | regions(4, masks=True)")(source[0], None)
    np.testing.assert_array_equal(made["boxes_mask"], [True, True, False, False])
    np.testing.assert_array_equal(made["masks"][:2, :30], masks[[0, 2]])
    np.testing.assert_allclose(made["boxes"][0], [2 / 40, 5 / 40, 12 / 40, 11 / 40], atol=1e-6)
    every = open_source({"kind": "sa1b", "root": str(tmp_path), "max_area": 1.0})
    assert len(every[0]["regions"]) == 3


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match="has no NAME.jpg with masks in NAME.json"):
        open_source({"kind": "sa1b", "root": str(tmp_path)})
    write(tmp_path, "a", [np.ones((20, 40), bool)])
    with pytest.raises(ValueError, match="a.json is no file of SA-1B's masks: .*size"):
        open_source({"kind": "sa1b", "root": str(tmp_path)})[0]
    with pytest.raises(ValueError, match="There is no folder"):
        open_source({"kind": "sa1b", "root": str(tmp_path / "none")})
    with pytest.raises(ValueError, match="max_area is 2.0"):
        open_source({"kind": "sa1b", "root": str(tmp_path), "max_area": 2.0})
