"""Automatic masks beside the mask-generation pipeline of `transformers`: tests/golden/
make_sam_automatic.py; prompts in pixels of the image, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from parity import GOLDEN, close, expected

from mmjax.data import rle
from mmjax.masks import rules
from mmjax.masks.automatic import Settings, automatic_masks
from mmjax.masks.segmenter import Prompt, Segmenter, bilinear
from mmjax.pretrained import load

WANT = json.loads((GOLDEN / "sam_automatic.json").read_text())
IMAGE = np.asarray(WANT["colors"], np.uint8).repeat(10, 0).repeat(10, 1)


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter(load(GOLDEN / "sam"))


@pytest.mark.parametrize(
    ("case", "settings"),
    [
        ("whole", {"points": 5, "at_once": 8}),
        ("crops", {"points": 4, "crop_layers": 1, "at_once": 8}),
    ],
)
def test_masks_are_those_of_the_original(segmenter, case, settings):
    want, done = WANT[case], []
    params = jax.tree.map(np.copy, segmenter.loaded.params)
    params["masks"]["decoder"]["iou"]["map2"]["bias"] += WANT["shift"]  # its IoUs are negative
    segmenter = Segmenter(dataclasses.replace(segmenter.loaded, params=params))
    given = Settings(
        iou=want["threshold"], stability=want["stability"], offset=WANT["offset"], **settings
    )
    assert len(want["scores"]) < want["before"]  # some are suppressed
    crops = rules.crop_boxes(90, 120, given.crop_layers, given.overlap)
    assert [list(crop) for crop in crops] == want["crops"]
    found = automatic_masks(segmenter, IMAGE, given, done.append)
    assert sum(done) == len(crops) * given.points**2
    assert [list(x.box) for x in found] == want["boxes"]
    close(np.asarray([x.iou for x in found]), np.asarray(want["scores"]))
    for ours, counts in zip(found, want["counts"], strict=True):
        theirs = rle.decode(rle.Rle(90, 120, np.asarray(counts)))
        # A logit may round to the other side of 0.
        assert (rle.decode(ours.mask) != theirs).sum() <= 2


def test_masks_at_full_size_and_prompts_in_pixels(segmenter):
    """Three points and labels of two objects, in an image that is not square."""
    want = expected("sam")
    image = want["wide_image"]
    seen = segmenter.see(image)
    assert seen.size == (22, 38) and list(seen.resized) == want["sizes"][0].tolist()
    labels = [[1, 0, 1], [0, 1, 1]]
    prompts = [Prompt([tuple(p) for p in x], y) for x, y in zip(want["raw_points"], labels)]
    masks = segmenter.masks(seen, prompts)
    close(masks.logits[:, 1:], want["points_several"][0])
    full = segmenter.enlarge(masks.logits[:, 1:].reshape(-1, *masks.logits.shape[2:]), seen)
    close(full[:3], want["wide_full"])
    boxes = [Prompt(box=tuple(x)) for x in want["raw_boxes"][0]]
    close(segmenter.masks(seen, boxes).iou[:, 1:], want["boxes_several_iou"][0])
    again = [Prompt(box=x.box, logits=m) for x, m in zip(boxes, want["masks"][0].repeat(2, 0))]
    close(segmenter.masks(seen, again).iou[:, 0], want["boxes_masks_one_iou"][0, :, 0])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt([(120, 3)], [1]), r"point \(120, 3\) is outside of the image, .* 120x90 pixels"),
        (Prompt([(-1, 3)], [1]), "outside of the image"),
        (Prompt([(3, 3)], [0]), "names no object: give it a point on the object"),
        (Prompt(), "names no object"),
        (Prompt([(3, 3)], [2]), "give each point a label"),
        (Prompt(box=(9, 9, 9, 20)), r"box \(9, 9, 9, 20\) has no pixel"),
        (Prompt(box=(120, 0, 130, 9)), "has no pixel of the image"),
        (Prompt(logits=np.zeros((90, 120))), "mask of a prompt is 90x120, .* logits of 16x16"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(segmenter, prompt, message):
    with pytest.raises(ValueError, match=message):
        prompt.check((90, 120), segmenter.low)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points": 0}, "grid has 0 points a side"),
        ({"points": 10**8}, "use 1 to 1024"),
        ({"iou": float("nan")}, "masks.iou is nan"),
        ({"stability": 95.0}, "smallest stability is 95"),
        ({"overlap_iou": -1.0}, "largest IoU of two boxes -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings).check()


def test_rules_of_empty_and_full_masks():
    masks = np.zeros((3, 4, 6), bool)
    masks[1] = True
    masks[2, 1:3, 4] = True
    np.testing.assert_array_equal(rules.boxes_of(masks), [[0, 0, 0, 0], [0, 0, 5, 3], [4, 1, 4, 2]])
    logits = np.asarray([[[-9.0, -9.0]], [[0.5, 2.0]]])
    np.testing.assert_allclose(rules.stability(logits, 1.0), [0, 0.5])
    assert rules.suppress(np.zeros((0, 4)), np.zeros(0), 0.5).shape == (0,)


def test_bilinear_weights_are_those_of_a_slow_interpolation():
    for old, new in ((4, 9), (9, 4), (1, 3)):
        values = np.random.default_rng(0).normal(size=old)
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        np.testing.assert_allclose(
            bilinear(old, new) @ values, np.interp(at, np.arange(old), values), rtol=1e-5
        )


def test_another_model_is_refused():
    with pytest.raises(ValueError, match="'vit' does not segment images by prompts: give a SAM"):
        Segmenter(load(GOLDEN / "vit"))
