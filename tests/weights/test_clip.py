"""CLIP's published weights beside the original implementation: tests/golden/make_clip.py."""

import pytest
from parity import close, fixture, layers, layers_and_outputs, outputs

NAMES = ("clip", "clip_gelu")

golden = fixture(*NAMES)


def test_image_tower_layer_by_layer(golden):
    loaded, want = golden
    batch = {"image": want["image"]}
    found = layers(loaded, batch, "image")
    close(found, want["image_layers"][1:])
    close(outputs(loaded, batch)["image_embed"], want["image_embed"])


@pytest.mark.parametrize("size", ["wide", "large"])  # 2 x 7 and 5 x 6 patches, trained on 3 x 3
def test_images_of_another_size_than_trained(golden, size):
    loaded, want = golden
    found, given = layers_and_outputs(loaded, {"image": want[size]}, "image")
    close(found, want[f"{size}_layers"][1:])
    close(given["image_embed"], want[f"{size}_embed"])


def test_text_tower_layer_by_layer(golden):
    loaded, want = golden
    batch = {"text": want["text"], "text_mask": want["text_mask"]}
    close(layers(loaded, batch, "text"), want["text_layers"][1:])
    close(outputs(loaded, batch)["text_embed"], want["text_embed"])


def test_logits(golden):
    loaded, want = golden
    batch = {k: want[k] for k in ("image", "text", "text_mask")}
    found = outputs(loaded, batch)
    logits = found["logit_scale"] * found["image_embed"] @ found["text_embed"].T
    close(logits, want["logits_per_image"])
