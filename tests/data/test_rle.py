"""Run-length encodings beside pycocotools (golden) and bitmaps."""

import json
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmjax.data import rle

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "coco.json").read_text())["masks"]


@pytest.mark.parametrize("case", GOLDEN)
def test_as_pycocotools(case):
    height, width = case["size"]
    masks = [rle.from_polygon(points, height, width) for points in case["polygons"]]
    masks.append(rle.encode(np.asarray(case["bitmap"], bool)))
    assert [rle.to_string(mask) for mask in masks] == case["counts"]
    for mask, counts, box, area in zip(masks, case["counts"], case["box"], case["area"]):
        assert np.array_equal(rle.from_string(counts, height, width).counts, mask.counts)
        assert rle.box(mask).tolist() == box
        assert rle.area(mask) == area
    assert rle.to_string(rle.merge(masks)) == case["union"]
    assert rle.to_string(rle.merge(masks[:2], intersect=True)) == case["common"]
    np.testing.assert_allclose(rle.iou(masks, masks, case["crowd"]), case["iou"], atol=1e-12)


bitmaps = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: st.lists(arrays(bool, shape), min_size=1, max_size=4)
)


@hypothesis.given(bitmaps)
def test_as_bitmaps(masks):
    rles = [rle.encode(mask) for mask in masks]
    size = masks[0].shape
    for mask, coded in zip(masks, rles):
        assert np.array_equal(rle.decode(coded), mask)
        assert np.array_equal(rle.decode(rle.from_string(rle.to_string(coded), *size)), mask)
        given = {"size": list(size), "counts": coded.counts.tolist()}
        assert np.array_equal(rle.decode(rle.from_segmentation(given, *size)), mask)
        rows, columns = np.nonzero(mask)
        box = [0, 0, 0, 0]
        if len(rows):
            left, top = columns.min(), rows.min()
            box = [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
        assert rle.box(coded).tolist() == box
    for intersect, of in ((False, np.any), (True, np.all)):
        assert np.array_equal(rle.decode(rle.merge(rles, intersect)), of(masks, axis=0))
    expected = [(masks[0] & mask).sum() for mask in masks]
    assert rle.intersections(rles, rles[0]).tolist() == expected


def test_several_polygons_are_one_mask():
    square = [2.0, 2.0, 6.0, 2.0, 6.0, 6.0, 2.0, 6.0]
    other = [x + 3 for x in square]
    both = rle.from_segmentation([square, other], 12, 12)
    assert rle.area(both) == 16 + 16 - 1


def test_what_is_no_mask_is_refused():
    mask = rle.encode(np.eye(4, dtype=bool))
    text = rle.to_string(mask)
    with pytest.raises(ValueError, match=r"the size \[5, 4\], and its image is \[4, 4\]"):
        rle.from_segmentation({"size": [5, 4], "counts": text}, 4, 4)
    with pytest.raises(ValueError, match="has 16 pixels in all, and a mask of 4x5 has 20"):
        rle.from_string(text, 4, 5)
    with pytest.raises(ValueError, match="a character is wrong or missing"):
        rle.from_string(text[:-1] + "o", 4, 4)
    with pytest.raises(ValueError, match="a number is too long"):
        rle.from_string("o" * 40 + "0", 4, 4)
    with pytest.raises(ValueError, match="negative"):
        rle.from_segmentation({"size": [2, 2], "counts": [-1, 5]}, 2, 2)
    with pytest.raises(ValueError, match=r"a count of 4611686018427387903, and its mask 4 pixels"):
        # As int64 their sum is 4.
        rle.from_segmentation({"size": [2, 2], "counts": 4 * [2**62 - 1] + [8]}, 2, 2)
    for counts in (None, [[0], [4]], [0.5, 3.5], ["a"], [10**30]):
        with pytest.raises(ValueError, match="neither text nor a list of whole numbers"):
            rle.from_segmentation({"size": [2, 2], "counts": counts}, 2, 2)
    for points in ([0, 0, 1e9, 0, 5, 5], [0, 0, 1, 0, float("nan"), 5], [1e300] * 6):
        with pytest.raises(ValueError, match="cannot be drawn: use finite numbers, and at most"):
            rle.from_polygon(points, 4, 4)
    with pytest.raises(ValueError, match="has other things than numbers"):
        rle.from_polygon(["a"] * 6, 4, 4)
    with pytest.raises(ValueError, match="three points"):
        rle.from_polygon([0, 0, 1, 1], 4, 4)
    with pytest.raises(ValueError, match="neither a list of polygons nor an RLE"):
        rle.from_segmentation([], 4, 4)
    with pytest.raises(ValueError, match="cannot be merged"):
        rle.merge([mask, rle.encode(np.ones((2, 2), bool))])
