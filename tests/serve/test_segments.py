"""Segmentation by clicks: the masks of the command, images that are kept, and bad clicks."""

import io

import numpy as np
import pytest
from parity import GOLDEN
from PIL import Image
from png import png

pytest.importorskip("fastapi", reason="needs fastapi: pip install -e '.[demo]'")

from fastapi.testclient import TestClient

from mmjax.data import rle
from mmjax.masks.prompted import prompted_masks
from mmjax.masks.segmenter import Prompt
from mmjax.serve import segments
from mmjax.serve.app import make_app
from mmjax.serve.decoders import Lanes
from mmjax.serve.segments import open_segments

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8).repeat(10, 0).repeat(10, 1)


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def found():
    return open_segments(str(GOLDEN / "sam"), Lanes())


@pytest.fixture(scope="module")
def client(found):
    with TestClient(make_app(["testserver"], segments=found)) as client:
        yield client


@pytest.fixture(scope="module")
def image(client):
    return client.post("/api/segment/image", files={"file": encoded(PIXELS)}).json()


def test_clicks_give_the_masks_of_the_command(client, found, image):
    assert (image["width"], image["height"]) == (40, 30)
    assert client.get("/api/about").json()["segment"] == {"model": "sam", "points": 32}
    seen = found._segmenter.see(PIXELS)
    on, off = {"x": 0.5, "y": 0.25}, {"x": 0.75, "y": 0.5, "on": False}
    for clicks, prompt in (
        ({"points": [on]}, Prompt([(20, 7.5)], [1])),
        ({"points": [on, off]}, Prompt([(20, 7.5), (30, 15)], [1, 0])),
        ({"box": [0.25, 0.1, 1, 1]}, Prompt(box=(10, 3, 40, 30))),
    ):
        got = client.post("/api/segment", json={"image": image["image"], **clicks}).json()
        want = prompted_masks(found._segmenter, seen, prompt)
        assert [m["iou"] for m in got] == pytest.approx([w.iou for w in want], abs=1e-3)
        for mask, one in zip(got, want, strict=True):
            theirs = rle.decode(rle.from_segmentation(mask["segmentation"], 30, 40))
            np.testing.assert_array_equal(theirs, rle.decode(one.mask))
            assert mask["area"] == pytest.approx(theirs.mean())


def test_an_image_is_encoded_once_and_the_latest_are_kept(client, found, monkeypatch):
    calls, see = [], found._segmenter.see
    monkeypatch.setattr(found._segmenter, "see", lambda data: calls.append(1) or see(data))
    monkeypatch.setattr(segments, "KEPT", 2)
    found._seen.clear()

    def send(number):
        data = encoded(np.full_like(PIXELS, number))
        return client.post("/api/segment/image", files={"file": data}).json()["image"]

    names = [send(1), send(2), send(1), send(3)]
    assert names[0] == names[2] and len(calls) == 3
    click = {"points": [{"x": 0.5, "y": 0.5}]}
    codes = [
        client.post("/api/segment", json={"image": name, **click}).status_code for name in names
    ]
    assert codes == [200, 410, 200, 200]
    assert len(found._seen) == 2
    found._seen.clear()
    gone = client.post("/api/segment", json={"image": names[0], **click})
    assert gone.status_code == 410 and "send it again" in gone.json()["error"]


@pytest.mark.parametrize(
    "clicks, status, said",
    [
        ({}, 400, "names no object"),
        ({"points": [{"x": 0.5, "y": 0.5, "on": False}]}, 400, "names no object"),
        ({"points": [{"x": 1, "y": 0.5}]}, 400, "outside of the image, which is 40x30"),
        ({"points": [{"x": 1.5, "y": 0.5}]}, 422, "body/points/0/x: Input should be less"),
        ({"points": [{"x": 0, "y": 0}] * 33}, 422, "points: "),
        ({"box": [0.5, 0.5, 0.5, 1]}, 400, "has no pixel of the image"),
        ({"box": [0, 0, 1]}, 422, "body/box/3: Field required"),
    ],
)
def test_clicks_that_mean_nothing_get_one_sentence(client, clicks, status, said):
    data = encoded(PIXELS)
    name = client.post("/api/segment/image", files={"file": data}).json()["image"]
    answer = client.post("/api/segment", json={"image": name, **clicks})
    assert answer.status_code == status and said in answer.json()["error"]


def test_numbers_that_are_none_and_images_that_are_none(client):
    body = b'{"image": "a", "points": [{"x": NaN, "y": 0}]}'
    kind = {"content-type": "application/json"}
    assert client.post("/api/segment", content=body, headers=kind).status_code == 422
    assert client.post("/api/segment", content=body * 2000, headers=kind).status_code == 413
    answer = client.post("/api/segment/image", files={"file": b"text"})
    assert answer.status_code == 400 and "are no image" in answer.json()["error"]
    answer = client.post("/api/segment/image", data={"image": "0"})
    assert answer.status_code == 400 and "There is no index" in answer.json()["error"]
    answer = client.post("/api/segment/image", files={"file": png(10_000, 10_000)})
    assert answer.status_code == 400 and "10000 x 10000" in answer.json()["error"]
