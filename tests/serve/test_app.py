"""The server's endpoints beside what they should say, and all that is sent to hurt them."""

import io
import os
import time

import numpy as np
import odd_names
import pytest
from PIL import Image
from png import png

pytest.importorskip("fastapi", reason="needs fastapi: pip install -e '.[demo]'")

from fastapi.testclient import TestClient
from tiny_index import MODEL, draw

from mmjax.embedder import open_embedder
from mmjax.evals.occlusion import occlusion_maps
from mmjax.search import build
from mmjax.search.index import Index, Writer, create
from mmjax.serve.app import SCRIPTS, make_app
from mmjax.serve.decoders import Lanes
from mmjax.serve.service import Service

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for i in range(12):
        draw(root / f"{i}.png", i)
    return root


@pytest.fixture(scope="module")
def service(root, tmp_path_factory):
    embedder = open_embedder(MODEL, (1, 8))
    folder = tmp_path_factory.mktemp("index")
    create(folder, root, str(MODEL), embedder.fingerprint, 16, "float32")
    build.update(Writer(folder), embedder)
    return Service(Index(folder), embedder, Lanes())


@pytest.fixture(scope="module")
def client(service):
    with TestClient(make_app(["testserver"], service), raise_server_exceptions=False) as client:
        yield client


def vector(service, path):
    return service.embedder.images([service.embedder.prepare(path.read_bytes())])[0]


def test_words_find_what_their_vector_is_nearest_to(client, service, root):
    found = client.get("/api/search", params={"words": "red", "k": 5}).json()
    text = service.embedder.texts(["red"])[0]
    scores = {f"{i}.png": float(vector(service, root / f"{i}.png") @ text) for i in range(12)}
    assert [f["paths"][0] for f in found] == sorted(scores, key=scores.get, reverse=True)[:5]
    assert found[0]["score"] == pytest.approx(max(scores.values()), abs=1e-4)


def test_a_sample_is_spread_over_the_index(client):
    every = client.get("/api/sample", params={"k": 100}).json()
    assert len(every) == 12 and {one["score"] for one in every} == {0.0}
    some = client.get("/api/sample", params={"k": 3}).json()
    assert [every.index(one) for one in some] == [0, 5, 11]
    assert client.get("/api/sample", params={"k": 0}).status_code == 422


def test_a_picture_finds_itself_uploaded_or_by_name(client, root):
    file = {"file": ("x.png", (root / "7.png").read_bytes())}
    uploaded = client.post("/api/search?k=3", files=file).json()
    assert uploaded[0]["paths"] == ["7.png"] and uploaded[0]["score"] == pytest.approx(1, abs=1e-4)
    by_name = client.post("/api/search?k=3", data={"image": uploaded[0]["image"]}).json()
    assert by_name == uploaded
    shown = client.get(f"/api/image/{uploaded[0]['image']}?size=16")
    assert Image.open(io.BytesIO(shown.content)).size == (16, 16)
    assert shown.headers["content-type"] == "image/webp"


def test_labels_have_the_softmax_of_their_cosines(client, service, root):
    data = {"labels": "red, blue,\nred,a cat"}
    file = {"file": ("x.png", (root / "3.png").read_bytes())}
    found = client.post("/api/classify", data=data, files=file).json()
    names = ["red", "blue", "a cat"]
    logits = service.embedder.texts(names) @ vector(service, root / "3.png")
    logits = np.exp(service.embedder.logit_scale * logits)
    assert {f["label"]: round(f["share"], 4) for f in found} == {
        n: round(float(x), 4) for n, x in zip(names, logits / logits.sum())
    }
    assert [f["share"] for f in found] == sorted((f["share"] for f in found), reverse=True)


def test_attention_of_every_head_and_of_words(client, root):
    file = {"file": ("x.png", (root / "3.png").read_bytes())}
    looks = client.post("/api/attention", data={"words": "a red, dog"}, files=file).json()
    heads, rollout = np.asarray(looks["heads"]), np.asarray(looks["rollout"])
    assert heads.shape == (2, 2, 3, 3) and rollout.shape == (3, 3)
    np.testing.assert_allclose(heads.sum((2, 3)), 1, atol=1e-3)
    np.testing.assert_allclose(rollout.sum(), 1, atol=1e-3)
    assert [w["text"] for w in looks["words"]] == ["a red, dog", "a", "red", "dog"]
    assert looks["cropped"] and looks["aspect"] == 1
    assert client.post("/api/attention", files=file).json()["words"] == []


def test_a_result_shows_which_parts_of_it_match(client, service, root):
    (found,) = client.get("/api/search", params={"words": "red", "k": 1}).json()
    result, query = found["image"], root / "3.png"
    image = service.embedder.prepare((root / found["paths"][0]).read_bytes())
    for asked, want in (
        ({"data": {"words": "red"}}, service.embedder.texts(["red"])),
        ({"files": {"file": query.read_bytes()}}, vector(service, query)[None]),
    ):
        ask = {**asked, "data": {"result": result, **asked.get("data", {})}}
        answer = client.post("/api/match", **ask).json()
        scores, maps = occlusion_maps(service.embedder.images, image, want, 5)
        assert answer["score"] == pytest.approx(scores[0], abs=1e-5)
        np.testing.assert_allclose(answer["map"], maps[0], atol=2e-5)
        assert answer["aspect"] == 1 and answer["cropped"]
    before = service._matched.cache_info().hits
    assert client.post("/api/match", data={"result": result, "words": "red"}).status_code == 200
    assert service._matched.cache_info().hits == before + 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "Give one of file"),
        ({"words": "red", "image": "0"}, "Give one of words"),
        ({"words": "red", "result": "../../etc/passwd"}, "no such image"),
        ({"words": " "}, "The text has 0 characters"),
        ({"image": "0"}, "no such image"),
    ],
)
def test_a_match_without_an_image_or_a_query_gets_one_sentence(client, more, said):
    (found,) = client.get("/api/search", params={"words": "red", "k": 1}).json()
    answer = client.post("/api/match", data={"result": found["image"], **more})
    assert answer.status_code == 400 and said in answer.json()["error"]


def test_what_is_covered_is_what_answers():
    """A model that sees the mean color alone: of a red square on blue, red answers red."""
    image = np.zeros((28, 28, 3), np.uint8)
    image[..., 2] = 200
    image[8:12, 20:24] = (255, 0, 0)

    def mean_colour(images):
        means = np.stack([i.reshape(-1, 3).mean(0) for i in images]).astype(np.float32)
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    scores, maps = occlusion_maps(mean_colour, image, np.eye(3, dtype=np.float32)[[0, 2]])
    assert scores.shape == (2,) and maps.shape == (2, 7, 7)
    assert np.unravel_index(maps[0].argmax(), (7, 7)) == (2, 5)  # of 4 pixels a side
    assert maps[1, 2, 5] < 0 < maps[0, 2, 5]  # without it the image is bluer


def encoded(kind, **settings):
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, kind, **settings)
    return file.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'


@pytest.mark.parametrize(
    "data, said",
    [
        (SVG, "are no image"),
        (b"", "0 bytes"),
        (b"hello", "are no image"),
        (encoded("PNG")[:1500], "damaged or truncated"),
        (encoded("JPEG")[:700], "damaged or truncated"),
        (encoded("EPS"), "are no image"),
        (png(1, 1), "has 1 x 1 pixels"),
        (png(10_000, 10_000), "has 10000 x 10000 pixels; the maximum is 64,000,000"),
        (png(60_000, 60_000, b""), "pixels: make it smaller"),
    ],
    ids=["svg", "nothing", "text", "cut_png", "cut_jpeg", "eps", "dot", "bomb", "great_bomb"],
)
def test_pictures_that_are_none_get_one_sentence(client, data, said):
    answer = client.post("/api/search", files={"file": ("x.png", data)})
    assert answer.status_code == 400 and said in answer.json()["error"]


@pytest.mark.parametrize(
    "ask, status, said",
    [
        (lambda c: c.get("/api/search"), 422, "query/words: Field required"),
        (lambda c: c.put("/api/search"), 405, '"error":"Method Not Allowed."'),
        (lambda c: c.get("/api/search?words=%20"), 400, "The text has 0 characters"),
        (lambda c: c.get("/api/search?words=" + "a" * 501), 400, "The text has 501 characters"),
        (lambda c: c.get("/api/search?words=a&k=0"), 422, "k: "),
        (lambda c: c.get("/api/search?words=a&k=1000000"), 422, "k: "),
        (lambda c: c.post("/api/search"), 400, "Give one of file"),
        (lambda c: c.post("/api/search", data={"image": "../../etc/passwd"}), 400, "no such"),
        (lambda c: c.get("/api/image/..%2f..%2fetc%2fpasswd"), 404, ""),
        (lambda c: c.get("/api/image/0.png"), 400, "no such image"),
        (
            lambda c: c.post(
                "/api/classify", data={"labels": " , "}, files={"file": encoded("PNG")}
            ),
            400,
            "There are 0 labels: give 1 to 100",
        ),
        (
            lambda c: c.post(
                "/api/classify",
                data={"labels": "a", "templates": "x"},
                files={"file": encoded("PNG")},
            ),
            400,
            "The templates are 'x'",
        ),
        (lambda c: c.post("/api/search", files={"file": bytes(17 * 2**20)}), 413, "16,777,216"),
        (lambda c: c.get("/api/about", headers={"host": "evil.example"}), 400, ""),
    ],
)
def test_questions_that_are_none_get_one_sentence(client, ask, status, said):
    answer = ask(client)
    assert answer.status_code == status and said in answer.text
    assert "Traceback" not in answer.text


def test_a_body_that_hides_its_length_is_cut_off(client):
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'

    def endless():
        yield head
        for _ in range(20):
            yield bytes(2**20)

    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/api/search", content=endless(), headers=kind).status_code == 413


def test_a_link_that_leads_out_of_the_folder_shows_nothing(client, root, tmp_path):
    found = client.post("/api/search?k=1", files={"file": (root / "11.png").read_bytes()}).json()
    draw(tmp_path / "secret.png", 99)
    (root / "11.png").rename(tmp_path / "11.png")
    os.symlink(tmp_path / "secret.png", root / "11.png")
    answer = client.get(f"/api/image/{found[0]['image']}?size=33")
    (root / "11.png").unlink()
    (tmp_path / "11.png").rename(root / "11.png")
    assert answer.status_code == 400 and "no such image" in answer.json()["error"]


def test_pictures_that_are_indexed_while_it_runs_are_found(service, tmp_path):
    for i in range(3):
        draw(tmp_path / "pictures" / f"{i}.png", 200 + i)
    made = str(MODEL), service.embedder.fingerprint, 16, "int8"
    create(tmp_path / "index", tmp_path / "pictures", *made)
    build.update(Writer(tmp_path / "index"), service.embedder)
    app = make_app(["testserver"], Service(Index(tmp_path / "index"), service.embedder, Lanes()))
    with TestClient(app) as client:

        def found():
            hits = client.get("/api/search?words=red&k=100").json()
            return {path: hit["image"] for hit in hits for path in hit["paths"]}

        before = found()
        assert before.keys() == {"0.png", "1.png", "2.png"}
        draw(tmp_path / "pictures" / "new.png", 300)
        (tmp_path / "pictures" / "0.png").unlink()
        build.update(Writer(tmp_path / "index"), service.embedder)
        end = time.monotonic() + 30
        while (now := found()).keys() != {"1.png", "2.png", "new.png"}:
            assert time.monotonic() < end, now
        assert client.get("/api/about").json()["images"] == 3
        assert client.get(f"/api/image/{now['new.png']}?size=16").status_code == 200
        assert client.get(f"/api/image/{before['0.png']}?size=16").status_code == 400


def test_the_page_and_the_description_of_the_api(client):
    page = client.get("/")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for name in ("", "page.css", *(f"{script}.js" for script in SCRIPTS)):
        assert "//" not in client.get(f"/{name}").text.replace("// ", "")  # asks no one else
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        f"/api/{p}"
        for p in ("about", "sample", "search", "classify", "attention", "match", "image/{name}")
    }
    assert all(way["description"] for path in paths.values() for way in path.values())


# ---- batches and limits --------------------------------------------------------------------------


def test_paths_that_are_not_utf8_are_served_as_printable_text(tmp_path):
    (tmp_path / "pictures").mkdir()
    draw(tmp_path / "a.png", 1)
    data = (tmp_path / "a.png").read_bytes()
    odd_names.write(tmp_path / "pictures", data, odd_names.NOT_UTF8 + b".png")
    embedder = open_embedder(MODEL, (1, 8))
    create(
        tmp_path / "index", tmp_path / "pictures", str(MODEL), embedder.fingerprint, 16, "float32"
    )
    build.update(Writer(tmp_path / "index"), embedder)
    service = Service(Index(tmp_path / "index"), embedder, Lanes())
    with TestClient(make_app(["testserver"], service), raise_server_exceptions=False) as client:
        (found,) = client.get("/api/search", params={"words": "red", "k": 1}).json()
        assert found["paths"] == [r"caf\udce9.png"]
        assert client.get(f"/api/image/{found['image']}").status_code == 200
