"""Average precision beside pycocotools (golden), and a slow reference for what it cannot do."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from mmjax.data import rle
from mmjax.evals.metrics.coco_ap import (
    Detections,
    Truths,
    box_overlaps,
    class_ap,
    coco_ap,
    lvis_ap,
    precision_curves,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "coco.json").read_text())


def arrays(case):
    """Truths, detections and the number of classes of a golden case."""
    height, width = (case["data"]["images"][0][side] for side in ("height", "width"))

    def columns(records):
        box = [r.get("bbox", [0, 0, 0, 0]) for r in records]
        box = np.asarray(box, np.float64).reshape(-1, 4)
        masks = None
        if case["kind"] == "segm":
            masks = [rle.from_segmentation(r["segmentation"], height, width) for r in records]
        return {
            "image": np.asarray([r["image_id"] for r in records], np.int64),
            "label": np.asarray([r["category_id"] for r in records], np.int64),
            "boxes": np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], 1),
            "masks": masks,
        }

    objects, results = case["data"]["annotations"], case["results"]
    area = np.asarray([r["area"] for r in objects])
    crowd = np.asarray([bool(r["iscrowd"]) for r in objects])
    score = np.asarray([r["score"] for r in results])
    truths = Truths(**columns(objects), area=area, crowd=crowd)
    found = Detections(**columns(results), score=score)
    return truths, found, len(case["data"]["categories"])


@pytest.mark.parametrize("case", GOLDEN["ap"], ids=lambda case: case["kind"])
def test_as_pycocotools(case):
    found = np.asarray(list(coco_ap(*arrays(case)).values()))
    np.testing.assert_allclose(np.nan_to_num(found, nan=-1), case["stats"], atol=1e-9)


@pytest.mark.parametrize("case", GOLDEN["lvis"], ids=lambda case: str(case["limit"]))
def test_as_lvis(case):
    images, frequency = case["data"]["images"], [c["frequency"] for c in case["data"]["categories"]]
    known = (
        np.asarray([(x["id"], k) for x in images for k in x[name]], np.int64).reshape(-1, 2)
        for name in ("neg_category_ids", "not_exhaustive_category_ids")
    )
    found = lvis_ap(*arrays(case), *known, frequency, case["limit"])
    found = np.nan_to_num(list(found.values()), nan=-1)
    np.testing.assert_allclose(found, case["stats"], atol=1e-9)


def one_image(boxes, scores, truth, **more):
    """Truths and detections of class 0 in image 0."""
    boxes, truth = (np.asarray(x, np.float64).reshape(-1, 4) for x in (boxes, truth))
    sides = truth[:, 2:] - truth[:, :2]
    given = {"area": sides[:, 0] * sides[:, 1], "crowd": np.zeros(len(truth), bool)} | more
    zeros = [np.zeros(len(x), np.int64) for x in (boxes, truth)]
    truths = Truths(zeros[1], zeros[1], truth, **given)
    return truths, Detections(zeros[0], zeros[0], np.asarray(scores, np.float64), boxes)


BOX, OTHER = [0, 0, 40, 40], [50, 50, 90, 90]


def test_a_perfect_detector_scores_1():
    # pycocotools would count the first object as missed if its id were 0.
    found = coco_ap(*one_image([BOX, OTHER], [0.9, 0.8], [BOX, OTHER]), 1)
    assert found["ap"] == pytest.approx(1) and found["ar100"] == 1 and found["ar1"] == 0.5
    assert math.isnan(found["ap_small"]) and found["ap_medium"] == pytest.approx(1)


def test_an_area_at_a_bound_is_in_both_ranges():
    found = coco_ap(*one_image([BOX], [0.9], [BOX], area=np.asarray([1024.0])), 1)
    assert found["ap_small"] == found["ap_medium"] == pytest.approx(1)


def test_a_crowd_is_neither_found_nor_missed():
    crowd = np.asarray([False, True])
    inside = [60, 60, 70, 70]  # a small part of the crowd, all of it in it
    truths, found = one_image([inside, inside, BOX], [0.9, 0.8, 0.7], [BOX, OTHER], crowd=crowd)
    assert coco_ap(truths, found, 1)["ap"] == pytest.approx(1)
    assert coco_ap(truths._replace(crowd=~crowd), found, 1)["ap"] == 0
    overlap = box_overlaps(found.boxes[:1], truths.boxes[1:], np.asarray([True]))
    assert overlap == 1


def test_two_overlapping_crowds_take_any_number():
    crowd = np.asarray([True, True, False])
    truths, found = one_image(
        [OTHER] * 5 + [BOX], np.linspace(1, 0.5, 6), [OTHER, [45, 45, 90, 90], BOX], crowd=crowd
    )
    assert coco_ap(truths, found, 1)["ap"] == pytest.approx(1)


def test_of_equal_overlaps_the_last_object_is_taken():
    left, right = [0, 0, 10, 10], [10, 0, 20, 10]
    both = [0, 0, 20, 10]  # IoU 0.5 with each
    for truth, recall in (([left, right], 0.5), ([right, left], 1.0)):
        curves = precision_curves(*one_image([both, right], [0.9, 0.8], truth), 1)
        assert curves.recall[-1, 0, 0, 0] == recall


def test_without_detections_or_objects():
    assert coco_ap(*one_image([], [], [BOX]), 1)["ap"] == 0
    assert math.isnan(coco_ap(*one_image([BOX], [1], []), 1)["ap"])
    curves = precision_curves(*one_image([BOX], [1], [BOX]), 3)
    assert class_ap(curves)[0] == pytest.approx(1) and np.isnan(class_ap(curves)[1:]).all()


def test_masks_of_one_side_alone_are_refused():
    truths, found = one_image([BOX], [1], [BOX])
    masks = [rle.encode(np.ones((100, 100), bool))]
    with pytest.raises(ValueError, match="or none has"):
        coco_ap(truths._replace(masks=masks), found, 1)
    with pytest.raises(ValueError, match="there are 0 classes"):
        coco_ap(truths, found, 0)


def test_lvis_counts_only_classes_that_were_looked_for():
    truths, found = one_image([BOX], [0.5], [BOX])
    # Wrong detections, more certain: of a class not looked for, one known not to be there, and one
    # of which not every object is annotated.
    more = Detections(
        np.asarray([0, 0, 0, 0]),
        np.asarray([1, 2, 3, 0]),
        np.asarray([0.9, 0.9, 0.9, 0.5]),
        np.asarray([OTHER, OTHER, OTHER, BOX], np.float64),
    )
    truths = Truths(
        np.asarray([0, 1, 1, 0]),
        np.asarray([0, 1, 2, 3]),
        np.asarray([BOX] * 4, np.float64),
        np.full(4, 1600.0),
        np.zeros(4, bool),
    )
    right = Detections(*(np.concatenate([x, x[-1:].repeat(3, 0)]) for x in more[:4]))
    right.image[4:], right.label[4:] = [1, 1, 0], [1, 2, 3]
    pairs = np.asarray([[0, 2]]), np.asarray([[0, 3]])
    found = lvis_ap(truths, right, 4, *pairs, "rccf")
    assert found["ap_rare"] == pytest.approx(1)
    assert found["ap_frequent"] == pytest.approx(1)  # ignored: not exhaustively annotated
    assert found["ap_common"] == pytest.approx((1 + 0.5) / 2, abs=0.01)
    assert found["ap"] == pytest.approx((1 + 1 + 0.5 + 1) / 4, abs=0.01)
    assert lvis_ap(truths, right, 4, *pairs, "rccf", limit=1)["ap"] < 0.5
