"""Idefics3 and SmolVLM beside the originals: tests/golden/make_idefics3.py."""

import json

import numpy as np
import pytest
from parity import GOLDEN, close, expected, towers_and_outputs

from mmjax.data.text.image_places import ImagePlaces
from mmjax.data.transforms import parse
from mmjax.decode.generate import make_generate
from mmjax.decode.settings import Settings
from mmjax.pretrained import describe, load, save_pretrained
from mmjax.weights.tensor_file import Safetensors

NAMES = ("idefics3", "smolvlm")


@pytest.fixture(scope="module", params=NAMES)
def golden(request):
    return request.param, load(GOLDEN / request.param), expected(request.param)


def batch_of(name, loaded, want):
    texts = {k: want[k] for k in ("text", "text_mask")}
    if name == "idefics3":
        return {**texts, "image": want["tiles"][None]}
    image = np.stack([loaded.image(x) for x in want["image"]]).reshape(3, 8, 8, 3)
    image = np.stack([image[:2], [image[2], np.zeros_like(image[0])]])
    return {**texts, "image": image, "image_mask": np.array([[1, 1], [1, 0]], bool)}


def test_every_layer_and_the_logits(golden):
    name, loaded, want = golden
    (text,), given = towers_and_outputs(loaded, batch_of(name, loaded, want), ("text",))
    seen = want["text_mask"]
    close(text[:-1, seen], want["text_layers"][1:-1, seen])  # the last one is after the norm
    close(given["text_logits"][seen][:, ::3], want["text_logits"][seen])


def test_what_it_writes_with_a_cache(golden):
    name, loaded, want = golden
    written, start = want["written"], want["text"].shape[1]
    settings = Settings(written.shape[1] - start, end_ids=(), pad_id=0)
    prompts = {k: v[:1] for k, v in batch_of(name, loaded, want).items()}
    found = make_generate(loaded.model, settings)(loaded.variables, prompts)
    np.testing.assert_array_equal(np.asarray(found.tokens)[0, 0], written[0, start:])


def test_from_images_to_tiles_and_texts_as_the_processor():
    loaded, want = describe(GOLDEN / "idefics3"), expected("idefics3")
    images = (want["wide"], want["square"])
    example = parse.parse(loaded.transform)({"image": images}, np.random.default_rng(0))
    np.testing.assert_array_equal(example["image"], want["tiles"])
    np.testing.assert_array_equal(example["image_grid"], [[1, 2], [2, 2]])
    places = ImagePlaces("<image>", loaded.model.image_length, **loaded.config["places"])
    text = places.expand("<image>a red bus<image>two small dogs", example["image_grid"])
    np.testing.assert_array_equal(loaded.tokenizer._ids([text])[0], want["text"][0])


def test_saved_and_loaded_again(golden, tmp_path):
    name, loaded, _ = golden
    save_pretrained(loaded, tmp_path / "out")
    theirs, ours = Safetensors(GOLDEN / name), Safetensors(tmp_path / "out")
    assert ours.shapes == theirs.shapes
    for tensor in theirs.shapes:
        np.testing.assert_array_equal(ours.read(tensor), theirs.read(tensor))
    before, after = (
        json.loads((x / "config.json").read_text()) for x in (GOLDEN / name, tmp_path / "out")
    )
    for setting in ("scale_factor", "image_token_id", "tie_word_embeddings"):
        assert after[setting] == before[setting], setting
    again = describe(tmp_path / "out")
    assert again.config == loaded.config and again.transform == loaded.transform
