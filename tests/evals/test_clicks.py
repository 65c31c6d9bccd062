"""IoU by clicks, averaged over objects."""

import numpy as np
import pytest
from fake_runner import FakeRunner

from mmjax.evals.clicks import Clicks

IOU = np.asarray([[[0.2, 0.9], [0.4, 0.5]], [[0.9, 1.0], [7.0, 7.0]], [[7.0, 7.0], [7.0, 7.0]]])


def evaluator(valid):
    batch = {"boxes_mask": np.asarray(valid), "example_id": np.asarray([0, 1, -1])}
    runner = FakeRunner(
        open_source=lambda config: type("Source", (list,), {"name": "scenes"})([0, 1]),
        batches=lambda source, transform, size: iter([batch]),
        embed=lambda variables, batch: {"click_iou": IOU},
        batch_size=3,
    )
    return Clicks(runner=runner, source={}, transform="")


def test_objects_count_once_and_padding_does_not():
    found = dict(evaluator([[True, True], [True, False], [True, True]]).run(None))
    assert found["objects"] == 3
    np.testing.assert_allclose([found["miou_1"], found["miou_2"]], [0.5, 0.8])
    np.testing.assert_allclose(found["noc_85"], (2 + 2 + 1) / 3)


def test_a_source_without_objects_is_refused():
    with pytest.raises(ValueError, match="scenes shows no object"):
        dict(evaluator(np.zeros((3, 2), bool)).run(None))
