"""OWL-ViT's and OWLv2's published weights beside the original: tests/golden/make_owlvit.py."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from parity import GOLDEN, close, fixture, layers_and_outputs, outputs
from safetensors.numpy import load_file

from mmjax.detection.boxes import best_queries, query_token, relative_scores, suppress, to_pixels
from mmjax.pretrained import load, save_pretrained

golden = fixture("owlvit", "owlv2")


@pytest.mark.parametrize("image", ["image", "wide"])  # as trained, 3 x 3 patches; 2 x 5
def test_detection_layer_by_layer_with_padding_queries(golden, image):
    loaded, want = golden
    batch = {"image": want[image], "text": want["text"], "text_mask": want["text_mask"]}
    blocks, found = layers_and_outputs(loaded, batch, "image")
    close(blocks, want[f"{image}_layers"][1:])
    valid = want["text_mask"].any(-1)
    shown = np.broadcast_to(valid[:, None], found["query_logits"].shape)
    close(found["query_logits"][shown], want[f"{image}_logits"][shown])
    assert (found["query_logits"][~shown] == want[f"{image}_logits"][~shown]).all()
    center, size = np.split(want[f"{image}_boxes"], 2, axis=-1)
    close(found["pred_boxes"], np.concatenate([center - size / 2, center + size / 2], -1))
    close(found["class_embed"], want[f"{image}_class_embed"])
    assert ("objectness_logits" in found) == (f"{image}_objectness" in want)
    if "objectness_logits" in found:
        close(found["objectness_logits"], want[f"{image}_objectness"])
    if image == "wide":
        close(found["text_embed"][:, 0], want["text_embed"])
        scores = found["logit_scale"] * found["image_embed"] @ found["text_embed"][:, 0].T
        close(scores, want["clip_logits"])


SIZES = ((30, 50), (70, 40))  # of the images whose boxes are placed


@pytest.mark.parametrize("image", ["image", "wide"])
def test_boxes_of_texts_are_placed_as_by_the_original(golden, image):
    _, want = golden
    logits = want[f"{image}_logits"]
    center, size = np.split(want[f"{image}_boxes"], 2, axis=-1)
    boxes = np.concatenate([center - size / 2, center + size / 2], -1)
    for i in range(2):
        found = best_queries(logits[i], boxes[i], 0.3)
        padded = f"{image}_objectness" in want
        close(found.scores, want[f"{image}_found{i}_scores"])
        assert (found.labels == want[f"{image}_found{i}_labels"]).all()
        pixels = to_pixels(found.boxes, SIZES[i], padded)
        close(pixels, want[f"{image}_found{i}_boxes"])


@pytest.mark.parametrize("image", ["image", "wide"])
def test_detection_by_another_image(golden, image):
    loaded, want = golden
    first = outputs(loaded, {"image": want[image]})
    objectness = first.get("objectness_logits")
    tokens = [
        query_token(
            first["class_embed"][i],
            first["pred_boxes"][i],
            None if objectness is None else objectness[i],
        )
        for i in (1, 0)  # each is found in the other
    ]
    queries = first["class_embed"][[1, 0], tokens][:, None]
    found = outputs(loaded, {"image": want[image], "query_embed": queries})
    close(found["query_logits"], want[f"{image}_guided_logits"])
    for i in range(2):
        every = best_queries(found["query_logits"][i], found["pred_boxes"][i], 0.4)
        every = suppress(every, 0.3)
        relative = relative_scores(every.scores)
        shown = relative > 0
        close(relative[shown], want[f"{image}_guided{i}_scores"])
        pixels = to_pixels(every.boxes[shown], SIZES[i], objectness is not None)
        close(pixels, want[f"{image}_guided{i}_boxes"])


def test_images_are_prepared_as_by_the_original(golden):
    loaded, want = golden
    for name in ("photo", "tall", "tiny"):
        pixels = loaded.image(want[name]).astype(np.float32)
        # The original rounds OWL-ViT's pixels, and keeps fractions of OWLv2's.
        atol = 0.51 if "pad_square" in loaded.transform else 0.01
        np.testing.assert_allclose(pixels, want[f"{name}_pixels"], rtol=0, atol=atol)


def test_a_saved_model_has_the_same_files(golden, tmp_path):
    loaded, _ = golden
    folder = tmp_path / "saved"
    save_pretrained(loaded, folder)
    again = load(folder)
    assert again.config == loaded.config and again.transform == loaded.transform
    jax.tree.map(np.testing.assert_array_equal, again.params, loaded.params)
    kind = "owlv2" if loaded.config["objectness"] else "owlvit"
    theirs = load_file(GOLDEN / kind / "model.safetensors")
    ours = load_file(folder / "model.safetensors")
    assert {k: x.shape for k, x in ours.items()} == {k: x.shape for k, x in theirs.items()}
    assert again.tokenizer.encode(["a red bus"], 8)[0].tolist() == (
        loaded.tokenizer.encode(["a red bus"], 8)[0].tolist()
    )


def test_what_cannot_be_saved_or_loaded_is_named(golden, tmp_path):
    loaded, _ = golden
    other = "decode | resize(24)" if loaded.config["objectness"] else "decode | pad_square"
    other = dataclasses.replace(loaded, transform=other)
    if loaded.config["objectness"]:
        with pytest.raises(ValueError, match=r"not resized as those of a published 'owlv2'.*pad"):
            save_pretrained(other, tmp_path / "saved")
    folder = tmp_path / "copy"
    shutil.copytree(GOLDEN / "owlvit", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"projection_dim": 16}))
    with pytest.raises(ValueError, match="projection_dim 16 and texts of width 32.*compares"):
        load(folder)
