"""Image towers alone, and a ViT with two sides, beside the original code: make_vision.py."""

import json

import numpy as np
import pytest
from parity import GOLDEN, close, expected, outputs

from mmjax.embedder import Embedder
from mmjax.models.systems import make_system
from mmjax.pretrained import Pretrained, load, save_pretrained
from mmjax.weights.families import clip_vision
from mmjax.weights.tensor_file import Renamed, Safetensors

NAMES = ("clip_vision", "clip_vision_projection", "siglip_vision", "vit_sides")


@pytest.fixture(scope="module", params=NAMES)
def golden(request):
    return request.param, load(GOLDEN / request.param), expected(request.param)


def test_from_the_pixels_of_a_picture_to_what_the_model_gives(golden):
    _, loaded, want = golden
    images = np.stack([loaded.image(image) for image in want["image"]])
    found = outputs(loaded, {"image": images})
    if "logits" in want:
        close(found["logits"], want["logits"])
    if "image_embeds" in want:
        length = np.linalg.norm(want["image_embeds"], axis=-1, keepdims=True)
        close(found["image_embed"], want["image_embeds"] / length)
    if "pooler_output" in want:
        close(found["image_features"], want["pooler_output"])


def test_saved_and_loaded_again(golden, tmp_path):
    name, loaded, _ = golden
    save_pretrained(loaded, tmp_path / "out")
    theirs, ours = Safetensors(GOLDEN / name), Safetensors(tmp_path / "out")
    if name != "vit_sides":
        theirs = Renamed(theirs, clip_vision.canonical)
    assert ours.shapes == theirs.shapes
    for tensor in ours.shapes:
        np.testing.assert_array_equal(ours.read(tensor), theirs.read(tensor))
    before, after = (
        json.loads((folder / "config.json").read_text())
        for folder in (GOLDEN / name, tmp_path / "out")
    )
    for setting in ("model_type", "architectures", "image_size"):
        assert after[setting] == before[setting]
    again = load(tmp_path / "out")
    assert again.transform == loaded.transform
    assert {**again.config, "image_mean": 0} == {**loaded.config, "image_mean": 0}


def test_an_image_tower_alone_embeds_no_texts():
    with pytest.raises(ValueError, match="A 'vit' does not embed both images and texts"):
        Embedder(load(GOLDEN / "clip_vision_projection"))


def test_what_an_image_tower_alone_cannot_have_is_refused(tmp_path):
    sizes = {"width": 16, "depth": 1, "heads": 2, "mlp_dim": 24, "patch_size": 8, "image_size": 16}
    clip = {"name": "vit", **sizes, "patch_bias": False, "pre_norm": True}
    for changes, words in (
        ({"num_classes": 3}, "'clip_vision_model', which has no num_classes 3"),
        ({"image_size": (16, 24)}, "'clip_vision_model', which has no image_size"),
        ({"pool": "map", "embed_dim": 4}, "'siglip_vision_model', which has no .*embed_dim 4"),
    ):
        config = clip | changes
        model = make_system({"model": config}).model
        with pytest.raises(ValueError, match=words):
            save_pretrained(Pretrained(config, model, {}, None, None, "", ""), tmp_path / "out")
