"""SAM beside `transformers`: tests/golden/make_sam.py."""

import json
import shutil

import jax
import numpy as np
import pytest
from parity import GOLDEN, close, expected

from mmjax.data.transforms import parse as transforms
from mmjax.layers.block import Block
from mmjax.pretrained import load, save_pretrained
from mmjax.weights.tensor_file import Safetensors

CASES = (
    "points",
    "boxes",
    "points_boxes",
    "masks",
    "points_masks",
    "boxes_masks",
    "all",
    "none",
)


@pytest.fixture(scope="module")
def sam():
    return load(GOLDEN / "sam")


@pytest.fixture(scope="module")
def want():
    return expected("sam")


@pytest.fixture(scope="module")
def encoded(sam, want):
    """The encoder's blocks, its feature map, and sizes, of both images."""
    prepare = transforms.parse(sam.transform)
    made = [prepare({"image": want[f"{x}_image"]}, None) for x in ("wide", "tall")]
    batch = {k: np.stack([x[k] for x in made]) for k in ("image", "image_size")}

    def run(variables, batch):
        return sam.model.apply(
            variables,
            batch,
            capture_intermediates=lambda module, name: (
                isinstance(module, Block) and name == "__call__"
            ),
            mutable=["intermediates"],
        )

    outputs, kept = jax.jit(run)(sam.variables, batch)
    kept = kept["intermediates"]["image"]
    blocks = [kept[f"block{i}"]["__call__"][0][0] for i in range(3)]
    return blocks, outputs["image_embedding"], batch["image_size"]


def test_images_are_prepared_as_by_the_original(sam, want, encoded):
    assert sam.transform == "decode | resize_long(32, 'bilinear') | pad_corner(32)"
    np.testing.assert_array_equal(encoded[2], want["sizes"])


def test_encoder_layer_by_layer(want, encoded):
    blocks, embedding, _ = encoded
    for ours, theirs in zip(blocks, want["layers"], strict=True):
        close(ours, theirs)
    close(embedding, want["embedding"])


@pytest.fixture(scope="module")
def apply(sam):
    return jax.jit(sam.model.apply)


def prompts(want, case):
    """The batch of a case: pixels of the original as fractions of the side."""
    batch, objects = {"image_embedding": want["embedding"]}, 2
    if "points" in case or case == "all":
        batch["prompt_points"] = (want["points"] / 32).astype(np.float32)
        batch["prompt_labels"] = want["labels"].astype(np.int32)
    if "boxes" in case or case == "all":
        batch["prompt_boxes"] = (want["boxes"] / 32).astype(np.float32)
    if "masks" in case or case == "all":
        objects = 1 if case == "masks" else 2
        batch["prompt_masks"] = np.repeat(want["masks"], objects, axis=1)
    if case == "none":
        batch["prompt_points"] = np.zeros((2, 1, 0, 2), np.float32)
        batch["prompt_labels"] = np.zeros((2, 1, 0), np.int32)
    return batch


@pytest.mark.parametrize("case", CASES)
def test_masks_of_every_combination_of_prompts(apply, sam, want, case):
    found = apply(sam.variables, prompts(want, case))
    close(found["mask_logits"][:, :, 1:], want[f"{case}_several"])
    close(found["iou"][:, :, 1:], want[f"{case}_several_iou"])
    close(found["mask_logits"][:, :, :1], want[f"{case}_one"])
    close(found["iou"][:, :, :1], want[f"{case}_one_iou"])


def test_padding_is_0_and_no_point_is_not(sam, want):
    """Labels -10 and -1, beside the embeddings of the original."""
    model, variables = sam.model, sam.variables
    assert -10 in want["labels"] and -1 in want["labels"]

    def run(variables, batch):
        return model.apply(
            variables,
            batch,
            capture_intermediates=lambda module, _: module.name == "prompts",
            mutable=["intermediates"],
        )[1]["intermediates"]["masks"]["prompts"]["__call__"][0]

    tokens, _ = jax.jit(run)(variables, prompts(want, "points"))
    close(tokens.reshape(want["points_tokens"].shape), want["points_tokens"])
    _, dense = jax.jit(run)(variables, prompts(want, "masks"))
    close(dense, want["masks_dense"])


def test_a_saved_model_is_the_same_tensor_by_tensor(sam, tmp_path):
    save_pretrained(sam, tmp_path / "saved")
    theirs, ours = Safetensors(GOLDEN / "sam"), Safetensors(tmp_path / "saved")
    assert ours.shapes == theirs.shapes
    for name in theirs.shapes:
        np.testing.assert_array_equal(ours.read(name), theirs.read(name))
    again = load(tmp_path / "saved")
    assert again.config == sam.config and again.transform == sam.transform
    for name in ("config.json", "preprocessor_config.json"):
        before, after = (
            json.loads((folder / name).read_text())
            for folder in (GOLDEN / "sam", tmp_path / "saved")
        )
        for key, value in after.items():
            if isinstance(value, dict):
                assert {k: before[key][k] for k in value} == value
            else:
                assert before[key] == value


def test_the_second_copy_of_the_frequencies_is_ignored(tmp_path, sam):
    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(GOLDEN / "sam", tmp_path / "twice")
    tensors = load_file(folder / "model.safetensors")
    own = "prompt_encoder.shared_embedding.positional_embedding"
    tensors[own] = tensors["shared_image_embedding.positional_embedding"]
    save_file(tensors, folder / "model.safetensors")
    assert f"unused  {own}" in load(folder).report


@pytest.mark.parametrize(
    ("section", "changed", "message"),
    [
        ("vision_config", {"use_rel_pos": False}, "use_rel_pos False; .* only True"),
        ("mask_decoder_config", {"attention_downsample_rate": 4}, "downsample_rate 4"),
        ("prompt_encoder_config", {"image_size": 64}, "prompt_encoder_config.image_size 64"),
        ("vision_config", {"global_attn_indexes": [3]}, "block 3, .* blocks 0 to 2"),
    ],
)
def test_other_settings_are_refused(tmp_path, section, changed, message):
    folder = shutil.copytree(GOLDEN / "sam", tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    config[section] |= changed
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_images_of_another_size_are_refused(sam):
    with pytest.raises(ValueError, match="images are 24x32 and the encoder takes 32x32"):
        sam.model.apply(sam.variables, {"image": np.zeros((1, 24, 32, 3), np.uint8)})
