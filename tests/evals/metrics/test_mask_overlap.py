"""Overlap of masks and grounding, beside loops over pixels."""

import numpy as np
import pytest

from mmjax.evals.metrics.grounding import grounding_accuracy, pointing_game, recall_at
from mmjax.evals.metrics.mask_overlap import boundary_iou, iou_by_clicks, mask_iou


def eroded(mask):
    """A pixel stays if all 3 x 3 around it are set; outside is not."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    shifts = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.all(shifts, axis=0)


@pytest.mark.parametrize("size", [(20, 31), (64, 48), (120, 160)])
def test_boundary_iou_as_repeated_erosion(size):
    rng = np.random.default_rng(size[0])
    y, x = np.mgrid[: size[0], : size[1]]
    masks = np.stack(
        [
            ((y / size[0] - cy) / ry) ** 2 + ((x / size[1] - cx) / rx) ** 2 < 1
            for cy, cx, ry, rx in rng.uniform(0.2, 0.7, (6, 4))
        ]
        + [np.zeros(size, bool), np.ones(size, bool)]
    )
    truth = np.roll(masks, 2, axis=0)
    times = max(1, round(0.02 * np.hypot(*size)))
    for found, mask, other in zip(boundary_iou(masks, truth), masks, truth):
        inner = []
        for kept in (mask, other):
            for _ in range(times):
                kept = eroded(kept)
            inner.append(kept)
        edge, other_edge = mask & ~inner[0], other & ~inner[1]
        union = (edge | other_edge).sum()
        expected = (edge & other_edge).sum() / union if union else 1.0
        assert found == pytest.approx(expected)
    assert boundary_iou(masks, masks).tolist() == [1.0] * len(masks)


def test_mask_iou():
    masks = np.zeros((3, 4, 4), bool)
    masks[0, :2], masks[1, :2] = True, True
    truth = np.zeros((3, 4, 4), bool)
    truth[0, 1:3] = True
    assert mask_iou(masks, truth).tolist() == [1 / 3, 0, 1]


def test_clicks():
    iou = np.asarray([[0.5, 0.86, 0.95], [0.9, 0.8, 0.7], [0.1, 0.2, 0.3]])
    found = iou_by_clicks(iou)
    assert found["miou_1"] == pytest.approx(0.5) and found["miou_3"] == pytest.approx(0.65)
    assert found["noc_85"] == pytest.approx((2 + 1 + 3) / 3)
    assert found["noc_90"] == pytest.approx((3 + 1 + 3) / 3)


def test_grounding():
    truth = np.asarray([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    boxes = np.asarray(
        [
            [[0, 0, 0.5, 0.25], [0.5, 0.5, 1, 1], [0, 0, 1, 1]],  # half of it: IoU 0.5
            [[0, 0, 0.1, 0.1], [0, 0, 0.2, 0.2], [0.5, 0.5, 1, 0.9]],
        ]
    )
    assert grounding_accuracy(boxes[:, 0], truth) == 0.5
    assert recall_at(boxes, truth).tolist() == [0.5, 0.5, 1]
    maps = np.zeros((2, 4, 8))
    maps[0, 1, 3], maps[1, 1, 4] = 1, 1  # (0.4375, 0.375) and (0.5625, 0.375)
    assert pointing_game(maps, truth) == 0.5
    assert pointing_game(maps, truth, tolerance=0.13) == 1
