"""BLIP's three models beside transformers': tests/golden/make_blip.py."""

import json
import shutil

import jax
import numpy as np
import pytest
from parity import GOLDEN, close, expected, fixture, layers, layers_and_outputs, outputs

from mmjax.layers.pooling import end_position
from mmjax.models.systems import make_system
from mmjax.pretrained import load
from mmjax.system import Context

NAMES = ("blip_captioner", "blip_retrieval", "blip_vqa")

golden = fixture(*NAMES)


def system_of(loaded, **loss):
    return make_system({"model": loaded.config, "loss": loss})


def generated(loaded, batch, beams):
    """The best continuation of each row up to its end token, as lists of ids."""
    decode = {"max_new_tokens": 9, "min_new_tokens": 1, "beams": beams}
    found = system_of(loaded).generate(loaded.tokenizer, decode)(loaded.variables, batch)
    rows = zip(found.tokens[:, 0].tolist(), found.lengths[:, 0].tolist())
    return [row[:length] for row, length in rows]


def until(rows, end):
    """Rows of ids up to their first end token."""
    rows = [list(map(int, row)) for row in rows]
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def test_the_image_tower_layer_by_layer(golden):
    loaded, want = golden
    close(layers(loaded, {"image": want["image"]}, "image"), want["image_layers"][1:])
    close(outputs(loaded, {"image": want["image"]})["image_tokens"], want["image_tokens"])
    close(outputs(loaded, {"image": want["larger"]})["image_tokens"], want["larger_tokens"])
    side = want["image"].shape[1]
    assert loaded.transform == f"decode | resize(({side}, {side}), 'bicubic')"


@pytest.mark.parametrize("name", ["blip_captioner", "blip_vqa"])
def test_the_decoder_layer_by_layer(name):
    loaded, want = load(GOLDEN / name), expected(name)
    keys = ("image", "text", "text_mask", "question", "question_mask")
    batch = {k: want[k] for k in keys if k in want}
    mask = want["text_mask"]
    found, logits = layers(loaded, batch, "text_decoder"), outputs(loaded, batch)["text_logits"]
    close(found[:, mask], want["text_layers"][1:][:, mask])
    close(logits[mask], want["text_logits"][mask])
    # Whatever the first token is: the decoder replaces it by its own.
    batch["text"] = np.where(np.arange(mask.shape[1]) == 0, 2, batch["text"])
    np.testing.assert_array_equal(outputs(loaded, batch)["text_logits"], logits)


@pytest.mark.parametrize("beams", [1, 3])
def test_captions_are_those_of_transformers(beams):
    """None of them ends in a beam below the three best, which only ours allows: decode/beam.py."""
    loaded, want = load(GOLDEN / "blip_captioner"), expected("blip_captioner")
    name = "greedy" if beams == 1 else "beams"
    batch = {"image": want["image"]}
    assert generated(loaded, batch, beams) == until(want[name], 3)
    batch |= {"text": want["prompt"], "text_mask": np.ones_like(want["prompt"], bool)}
    assert generated(loaded, batch, beams) == until(want[f"prompted_{name}"], 3)


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_are_those_of_transformers(beams):
    loaded, want = load(GOLDEN / "blip_vqa"), expected("blip_vqa")
    name = "greedy" if beams == 1 else "beams"
    mask = np.ones_like(want["asked"], bool)
    batch = {"image": want["image"], "text": want["asked"], "text_mask": mask}
    assert generated(loaded, batch, beams) == until(want[name], 3)


def test_the_loss_of_captions_is_that_of_transformers():
    """Their labels are smoothed by text_config.label_smoothing, 0.1, and padding is set to -100."""
    loaded, want = load(GOLDEN / "blip_captioner"), expected("blip_captioner")
    batch = {k: want[k] for k in ("image", "text", "text_mask")}
    term = system_of(loaded).loss(outputs(loaded, batch), batch, Context(0, None, None, {}))
    value, weight = (np.asarray(x) for x in term["captioning"])
    close((value * weight).sum() / weight.sum(), want["loss"])


def test_log_probabilities_of_answers():
    """Of every answer after every question, from the logits of whole answers."""
    loaded, want = load(GOLDEN / "blip_vqa"), expected("blip_vqa")
    texts = ["a red bus", "dogs", "tea"]
    text, mask = (np.tile(x, (3, 1)) for x in loaded.tokenizer.encode(texts, 8))
    batch = {k: want[k] for k in ("image", "question", "question_mask")}
    found = system_of(loaded).score(loaded.tokenizer, texts)(loaded.variables, batch)
    batch = {k: np.repeat(x, 3, 0) for k, x in batch.items()} | {"text": text, "text_mask": mask}
    log_p = np.asarray(jax.nn.log_softmax(outputs(loaded, batch)["text_logits"]))[:, :-1]
    log_p = np.take_along_axis(log_p, text[:, 1:, None], 2)[..., 0]
    close(found.reshape(-1), (log_p * mask[:, 1:]).sum(1))


def test_texts_alone_and_grounded_in_images():
    loaded, want = load(GOLDEN / "blip_retrieval"), expected("blip_retrieval")
    text = {k: want[k] for k in ("text", "text_mask")}
    image, mask = {"image": want["image"]}, want["text_mask"]
    found, text_outputs = layers_and_outputs(loaded, text, "text_encoder")
    close(found[:, mask], want["text_layers"][1:][:, mask])
    image_outputs = outputs(loaded, image)
    close(image_outputs["image_embed"] @ text_outputs["text_embed"].T, want["cosines"])
    close(outputs(loaded, text | image)["match_logits"], want["match_logits"])
    tokens = {"image_tokens": image_outputs["image_tokens"]}
    close(outputs(loaded, text | tokens)["match_logits"], want["match_logits"])


def test_questions_grounded_in_images_layer_by_layer():
    loaded, want = load(GOLDEN / "blip_vqa"), expected("blip_vqa")
    keys = ("image", "text", "text_mask", "question", "question_mask")
    found = layers(loaded, {k: want[k] for k in keys}, "text_encoder")
    mask = want["question_mask"]
    close(found[:, mask], want["question_layers"][1:][:, mask])


def test_a_folder_of_another_kind_is_refused(tmp_path):
    folder = tmp_path / "blip"
    shutil.copytree(GOLDEN / "blip_captioner", folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["is_decoder"] = False
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="has is_decoder false in text_config"):
        load(folder)
    for changed, message in (
        ({"vocab_size": 159}, "config and weights are from different models"),
        ({"vocab_size": 140}, "bos_token_id 158 and vocab_size 140 in text_config"),
    ):
        config["text_config"] |= {"is_decoder": True, **changed}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=message):
            load(folder)


def test_a_text_ends_where_its_mask_does():
    loaded = load(GOLDEN / "blip_captioner")
    text, mask = loaded.tokenizer.encode(["a red bus"], 9)
    assert text[0, end_position(mask)[0]] == loaded.tokenizer.eos_id == 3
    assert loaded.kept["bos_token_id"] == loaded.config["decode_token"] == 158
