"""FLAVA beside the original, layer by layer and loss by loss: tests/golden/make_flava.py."""

import json

import jax
import numpy as np
import pytest
from parity import GOLDEN, close, expected, layers_and_outputs, outputs

from mmjax.data.transforms.parse import parse
from mmjax.layers.pixels import normalize
from mmjax.models.flava_pretraining import Settings, terms
from mmjax.pretrained import load
from mmjax.system import average

ENCODERS = ("image", "text", "multimodal")


@pytest.fixture(scope="module")
def golden():
    names = ("flava", "flava_model", "flava_codebook")
    return {name: (load(GOLDEN / name), expected(name)) for name in names}


def features(want):
    return {name: want[name] for name in ("image", "text", "text_mask")}


@pytest.mark.parametrize("name", ["flava", "flava_model"])
def test_encoders_layer_by_layer(golden, name):
    loaded, want = golden[name]
    for encoder in ENCODERS:
        layers, found = layers_and_outputs(loaded, features(want), encoder)
        close(layers, want[f"{encoder}_layers"][1:])
    for encoder in ENCODERS:
        close(found[f"{encoder}_tokens"], want[f"{encoder}_tokens"])
        close(found[f"{encoder}_pooled"], want[f"{encoder}_pooled"])
        close(found[f"{encoder}_features"], want[f"{encoder}_tokens"][:, 0])
    for encoder in ENCODERS[:2]:
        close(found[f"{encoder}_embed"], want[f"{encoder}_embed"])
    alone = outputs(loaded, {"image": want["image"]})
    close(alone["image_embed"], want["image_embed"])
    assert not any(name.startswith(("text", "multimodal")) for name in alone)


def mixed(want):
    """A batch with the golden examples three times: as pairs, as images and as texts alone."""
    names = ("image", "image_codebook", "text", "text_mask", "image_masked")
    batch = {name: want[name] for name in (*names, "text_corrupted", "text_masked")}
    batch |= {"text_corrupted_mask": want["text_mask"], "text_matched": want["text_matched"]}
    batch = {name: np.concatenate([x] * 3) for name, x in batch.items()}
    rows = len(want["text"])
    batch["image_present"] = np.repeat([True, True, False], rows)
    batch["text_present"] = np.repeat([True, False, True], rows)
    return batch


def test_every_loss_of_a_mixed_batch(golden):
    loaded, want = golden["flava"]
    batch = mixed(want)
    found = outputs(loaded, batch)
    rows, matched = len(want["text"]), want["text_matched"]
    for name in ("masked_image", "masked_text"):
        close(found[f"{name}_logits"][:rows], want[f"{name}_logits"])
    for name in ("multimodal_image", "multimodal_text"):  # the original has no others
        close(found[f"{name}_logits"][:rows][matched], want[f"{name}_logits"])
    close(found["match_logits"][:rows], want["itm_logits"])
    np.testing.assert_array_equal(found["image_codes"][:rows], want["image_codes"])
    scores = found["logit_scale"] * found["image_embed"] @ found["text_embed"].T
    close(scores[:rows, :rows][matched], want["contrastive_logits"])

    losses = jax.jit(lambda o, b: terms(Settings(), o, b, None))(found, batch)
    for name in ("mim", "mlm", "mmm_image", "mmm_text"):
        close(average(losses[name])[0], want[f"loss_{name}"])
    close(average(losses["matching"])[0], want["loss_itm"])
    # The original leaves out the pairs that do not match, which are still negatives.
    contrastive = np.asarray(losses["contrastive"].value[:rows])
    close(contrastive[matched].mean(), want["loss_global_contrastive"])


def test_training_clamps_the_logit_scale(golden):
    loaded, want = golden["flava"]
    batch = mixed(want)

    def loss(scale, train):
        params = {**loaded.params, "logit_scale": scale}
        found = loaded.model.apply({"params": params}, batch, train=train)
        losses = terms(Settings(), found, batch, None)["contrastive"]
        return average(losses)[0], found["logit_scale"]

    step = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    (value, used), gradient = step(np.float32(5), True)
    close(value, want["loss_clamped"])
    close(used, np.exp(np.float32(4.6052)))
    # The gradient is that at the limit, as where the parameter is clamped before the step.
    np.testing.assert_allclose(gradient, step(np.float32(4.6052), True)[1], rtol=1e-5)
    close(step(np.float32(5), False)[0][1], np.exp(np.float32(5)))


def test_the_codebook(golden):
    loaded, want = golden["flava_codebook"]
    found = outputs(loaded, {"image": want["image"]})
    close(found["image_code_logits"], want["logits"])
    np.testing.assert_array_equal(found["image_codes"], want["codes"])
    pixels = normalize(loaded.image(want["raw_image"][0])[None], *statistics(loaded.model))
    close(np.asarray(pixels).transpose(0, 3, 1, 2), want["raw_codebook_pixels"])


def statistics(model):
    return model.image_mean, model.image_std


def test_both_images_of_the_image_processor(golden):
    loaded, want = golden["flava"]
    rng = np.random.default_rng(0)
    made = parse(loaded.transform)({"image": want["raw_image"][0]}, rng)
    model = loaded.model
    for key, tower, theirs in (
        ("image", model.image_tower(parent=None), "raw_pixels"),
        ("image_codebook", model.image_codebook(parent=None), "raw_codebook_pixels"),
    ):
        pixels = normalize(made[key][None], *statistics(tower))
        close(np.asarray(pixels).transpose(0, 3, 1, 2), want[theirs])
    assert "codebook" not in golden["flava_model"][0].transform


def test_settings_of_the_first_files(tmp_path):
    """Whole numbers are squares, and the class has its old name."""
    for file in (GOLDEN / "flava_codebook").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = {"feature_extractor_type": "FlavaFeatureExtractor", "size": 224, "resample": 3}
    settings |= {"codebook_size": 24, "codebook_crop_size": 24}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    loaded = load(tmp_path)
    assert loaded.transform == "decode | resize((24, 24), 'lanczos') | center_crop((24, 24))"
    assert loaded.config["image_size"] == (24, 24)
    (tmp_path / "preprocessor_config.json").unlink()
    without = load(tmp_path)
    assert without.config["image_size"] == (112, 112) and "no settings of an" in without.report


def test_texts_are_bert_s(golden):
    loaded, _ = golden["flava"]
    text, mask = loaded.tokenizer.encode(["a red bus"], 8)
    assert [text[0, 0], text[0, mask.sum() - 1]] == [2, 3] and not text[0, mask.sum() :].any()
