"""Boxes of labels and of another image's object, by the real command and by its parts."""

import json
from pathlib import Path

import commands
import numpy as np
import pytest
from PIL import Image

from mmjax.detection.boxes import Detections, suppress, to_pixels
from mmjax.detection.detector import Detector, open_detector
from mmjax.detection.drawing import draw
from mmjax.detection.grounding import box_of_map, by_detector, by_grad_cam
from mmjax.evals.metrics.grounding import grounding_accuracy, pointing_game
from mmjax.pretrained import load

GOLDEN = Path(__file__).parent / "golden"
MODEL = GOLDEN / "owlv2"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, size in (("a", (40, 30)), ("b", (17, 60))):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "c.png").write_bytes(b"no image")
    return folder


def run(*args):
    return commands.run("-m", "mmjax.detect", *args, f"--model={MODEL}")


def test_the_command_prints_boxes_in_pixels_and_draws_them(photos, tmp_path):
    done = run(str(photos), "--labels=red bus,tea,tea,", "--threshold=0", f"--output={tmp_path}")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(row["path"]).name for row in rows] == ["a.png", "b.png", "c.png"]
    assert "detections" not in rows[2] and "bytes that start with" in rows[2]["error"]
    for row, (height, width) in zip(rows, ((40, 30), (17, 60)), strict=False):
        scores = [one["score"] for one in row["detections"]]
        assert len(scores) == 9 and scores == sorted(scores, reverse=True)
        assert {one["label"] for one in row["detections"]} <= {"red bus", "tea"}
        for x0, y0, x1, y1 in (one["box"] for one in row["detections"]):
            assert 0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height
    drawn = sorted(tmp_path.glob("*.png"))
    assert [Image.open(path).size for path in drawn] == [(30, 40), (60, 17)]


def test_what_the_command_refuses(photos):
    one = str(photos / "a.png")
    for args, message in (
        ((), "either --labels"),
        (("--labels=cat", f"--query_image={one}"), "either --labels"),
        (("--labels= , ",), "labels ' , ' are empty"),
        (("--labels=cat", "--threshold=2"), "--threshold is 2.0: use a number from 0 to 1"),
        (
            ("--query_image=none.png",),
            "Cannot read the image 'none.png': No such file or directory.",
        ),
        ((f"--query_image={__file__}",), "test_detect.py': "),
        (("--labels=cat", "--threshold=nan"), "error: --threshold is nan: give a finite number"),
        (("--labels=cat", f"--output={one}"), "is not a folder (File exists)"),
    ):
        done = run(one, *args)
        assert done.returncode == 2 and message in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def detector():
    return open_detector(MODEL)


def test_an_object_of_an_image_of_any_size_is_found_again_in_it(detector, photos):
    image = detector.prepare((photos / "b.png").read_bytes())
    query, box = detector.object_in(image)
    assert query.shape == (1, 32) and box.shape == (4,)
    (found,) = detector.find([image], [(17, 60)], query, 0.0)
    outputs = detector.outputs([image], query)
    token = outputs["objectness_logits"][0].argmax()
    np.testing.assert_allclose(
        found.scores[0], 1 / (1 + np.exp(-outputs["query_logits"][0].max())), rtol=1e-5
    )
    embed = outputs["class_embed"][0]
    cosines = embed @ embed[token] / np.linalg.norm(embed, axis=-1)
    assert cosines.argmax() == token


def test_batches_give_what_single_images_give(detector, photos):
    image = detector.prepare((photos / "a.png").read_bytes())
    queries = detector.texts(["red bus", "tea"], ["{}", "a photo of a {}"])
    alone = detector.find([image], [(40, 30)], queries, 0.1)[0]
    for found in detector.find([image, image, image], [(40, 30)] * 3, queries, 0.1):
        np.testing.assert_allclose(found.boxes, alone.boxes, rtol=1e-4, atol=1e-4)
        assert (found.labels == alone.labels).all()


def test_models_that_find_no_boxes_are_refused():
    with pytest.raises(ValueError, match="A 'clip' finds no boxes"):
        Detector(load(GOLDEN / "clip"))


def test_boxes_that_overlap_a_better_one_are_left_out():
    boxes = np.asarray([[0, 0, 4, 4], [0, 0, 4, 3], [5, 5, 6, 6], [0, 0, 4, 1]], np.float32)
    every = Detections(boxes, np.asarray([0.8, 0.9, 0.1, 0.5], np.float32), np.arange(4))
    assert suppress(every, 0.5).labels.tolist() == [1, 2, 3]
    assert suppress(every, 1.0).labels.tolist() == [0, 1, 2, 3]
    assert to_pixels(boxes[:1] / 4, (10, 20), False).tolist() == [[0, 0, 20, 10]]
    assert to_pixels(boxes[:1] / 4, (10, 20), True).tolist() == [[0, 0, 20, 20]]


def test_boxes_are_drawn_where_they_are():
    found = Detections(np.asarray([[10.0, 50, 60, 90]]), np.asarray([0.5]), np.asarray([0]))
    image = np.asarray(draw(Image.new("RGB", (100, 100), (255, 255, 255)), found, ["cup"]))
    changed = (image != 255).any(-1)
    assert changed[50, 10:61].all() and changed[90, 10:61].all() and changed[50:91, 10].all()
    assert not changed[55:85, 15:55].any() and not changed[:, 95:].any()


def test_a_phrase_has_a_map_and_a_box(detector, photos):
    image = detector.prepare((photos / "a.png").read_bytes())
    place = by_detector(detector, image, "red bus")
    assert place.heatmap.shape == (3, 3) and place.score == place.heatmap.max()
    assert pointing_game(place.heatmap[None], np.asarray([[0.0, 0, 1, 1]])) == 1
    box = np.asarray(place.box, np.float64)[None]
    assert grounding_accuracy(box, box) == 1


@pytest.mark.parametrize("name", ["albef", "blip_retrieval"])
def test_grad_cam_of_a_phrase(name):
    loaded = load(GOLDEN / name)
    rng = np.random.default_rng(0)
    image = loaded.image(rng.integers(0, 256, (30, 30, 3), dtype=np.uint8))
    place = by_grad_cam(loaded, image, "a red bus")
    assert place.heatmap.ndim == 2 and (place.heatmap >= 0).all() and 0 <= place.score <= 1
    x0, y0, x1, y1 = place.box
    x, y = place.point
    assert 0 <= x0 <= x <= x1 <= 1 and 0 <= y0 <= y <= y1 <= 1


def test_grad_cam_needs_a_model_that_matches():
    with pytest.raises(ValueError, match="'clip' does not match images with texts"):
        by_grad_cam(load(GOLDEN / "clip"), np.zeros((24, 24, 3), np.uint8), "a red bus")


def test_the_box_of_a_map_is_around_its_largest_part():
    heatmap = np.zeros((4, 6))
    heatmap[1:3, 2:4] = [[0.6, 1.0], [0.4, 0.7]]
    heatmap[3, 5] = 0.9  # not connected
    np.testing.assert_allclose(box_of_map(heatmap), [2 / 6, 1 / 4, 4 / 6, 3 / 4])
    assert box_of_map(np.zeros((2, 2))).tolist() == [0, 0, 1, 1]
