"""CLIP's published weights beside the original implementation: tests/golden/make_clip.py."""

import pytest
from parity import GOLDEN, close, expected, layers, outputs

from mmjax.pretrained import load

NAMES = ("clip", "clip_gelu")


@pytest.fixture(scope="module", params=NAMES)
def golden(request):
    return load(GOLDEN / request.param), expected(request.param)


def test_image_tower_layer_by_layer(golden):
    loaded, want = golden
    batch = {"image": want["image"]}
    found = layers(loaded, batch, "image")
    close(found, want["image_layers"][1:])
    close(outputs(loaded, batch)["image_embed"], want["image_embed"])


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
