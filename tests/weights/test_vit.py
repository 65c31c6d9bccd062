"""ViT, DeiT and DINOv2 beside the original implementation: tests/golden/make_{vit,dinov2}.py."""

import dataclasses
import json
import shutil

import jax.numpy as jnp
import pytest
from parity import GOLDEN, close, expected, fixture, layers_and_outputs, outputs

from mmjax.models.systems import make_system
from mmjax.pretrained import load, save_pretrained

NAMES = ("vit", "vit_pooler", "deit", "deit_token", "dinov2", "dinov2_swiglu", "dinov2_registers")

golden = fixture(*NAMES)


@pytest.mark.parametrize("image", ["image", "wide", "small"])  # as trained; 3x7 and 2x2 patches
def test_layer_by_layer_and_at_the_end(golden, image):
    loaded, want = golden
    batch = {"image": want[image]}
    blocks, found = layers_and_outputs(loaded, batch)
    close(blocks, want[f"{image}_layers"][1:])
    if f"{image}_logits" in want:
        close(found["logits"], want[f"{image}_logits"])
    else:
        close(found["image_features"], want[f"{image}_features"])


@pytest.mark.parametrize("name", ["vit", "dinov2"])
def test_pixels_that_do_not_fill_a_patch_are_dropped(name, tmp_path):
    """A convolution drops them: transformers 5.23 with image_size 25 and patch_size 7 too."""
    folder = shutil.copytree(GOLDEN / name, tmp_path / name)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"image_size": 37}))
    loaded, image = load(folder), expected(name)["image"]
    assert image.shape[1:3] == (32, 32)
    larger = jnp.pad(image, ((0, 0), (0, 5), (0, 5), (0, 0)), constant_values=9)
    found = outputs(loaded, {"image": larger})
    for key, want in outputs(load(GOLDEN / name), {"image": image}).items():
        close(found[key], want)
    save_pretrained(loaded, tmp_path / "saved")
    assert load(tmp_path / "saved").config == loaded.config


def test_tokens_of_patches_in_place_of_a_vector():
    loaded, want = load(GOLDEN / "dinov2"), expected("dinov2")
    config = loaded.config | {"pool": "none", "class_token": True}
    whole = make_system({"model": config}).model
    found = outputs(dataclasses.replace(loaded, model=whole), {"image": want["wide"]})
    close(found["image_tokens"], want["wide_tokens"][:, 1:])


def test_every_tensor_is_in_the_report():
    report = load(GOLDEN / "dinov2_registers").report
    assert ", 0 missing, 1 unused" in report
    assert "unused  dinov2_with_registers.embeddings.mask_token" in report
    assert "register_tokens -> registers" in report


def test_bfloat16_halves_the_matrices_alone():
    params = load(GOLDEN / "vit", dtype="bfloat16").params
    block = params["transformer"]["layers"]
    assert block["mlp"]["up"]["kernel"].dtype == jnp.bfloat16
    assert block["mlp"]["up"]["bias"].dtype == jnp.float32


def test_files_that_cannot_be_used_are_named(tmp_path):
    def copy(name, origin, **changed):
        folder = tmp_path / name
        shutil.copytree(GOLDEN / origin, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changed))
        return folder

    with pytest.raises(ValueError, match="pooler_act 'relu'; only 'tanh'"):
        load(copy("pooler", "vit_pooler", pooler_act="relu"))
    with pytest.raises(ValueError, match="hidden_act is 'relu6'"):
        load(copy("act", "vit", hidden_act="relu6"))
    with pytest.raises(ValueError, match="Missing tensors:.*encoder.layer.2.*Unused tensors: none"):
        load(copy("depth", "dinov2", num_hidden_layers=3))
    with pytest.raises(ValueError, match="config and weights are from different models"):
        load(copy("ratio", "dinov2", mlp_ratio=4))
    with pytest.raises(ValueError, match="50x32 is not a multiple of patch_size 8"):
        model = load(GOLDEN / "vit")
        outputs(model, {"image": jnp.zeros((1, 50, 32, 3), "uint8")})
