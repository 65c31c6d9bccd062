"""SigLIP 2 NaFlex beside the original implementation: tests/golden/make_siglip2_naflex.py."""

import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from parity import GOLDEN, close, expected, outputs, towers_and_outputs
from PIL import Image

from mmjax.data.transforms import parse as transforms
from mmjax.data.transforms.patch_steps import size_in_patches, uncut
from mmjax.embedder import Embedder
from mmjax.pretrained import load, save_pretrained
from mmjax.weights.image_processor import write_patches
from mmjax.weights.tensor_file import Safetensors

TORCH = os.environ.get("MMJAX_TORCH_PYTHON", "build/bench-venv/bin/python")
NAME = "siglip2_naflex"
IMAGES = range(5)
BUDGETS = (9, 16, 37)  # the position table has 16


@pytest.fixture(scope="module")
def golden():
    return load(GOLDEN / NAME), expected(NAME)


def batch_of(want, budget):
    """What our step `patches` makes of the images of the golden folder."""
    prepare = transforms.parse(f"decode | patches({budget}, 4)")
    rows = [prepare({"image": want[f"image_{i}"]}, np.random.default_rng(0)) for i in IMAGES]
    return {k: np.stack([row[k] for row in rows]) for k in ("image", "image_grid")}


@pytest.mark.parametrize("budget", BUDGETS)
def test_rows_of_patches_are_those_of_the_image_processor(golden, budget):
    want, made = golden[1], batch_of(golden[1], budget)
    assert (made["image_grid"] == want[f"{budget}_grid"]).all()
    assert len(np.unique(made["image_grid"], axis=0)) >= 4
    valid = want[f"{budget}_mask"]
    assert (made["image_grid"].prod(1) == valid.sum(1)).all() and not valid.all()
    assert (made["image"] == want[f"{budget}_pixels"]).all()  # to the last bit, padding included


def test_sizes_are_those_of_the_image_processor(golden):
    for height, width, patch, budget, *found in golden[1]["sizes"].tolist():
        assert size_in_patches(height, width, patch, budget) == tuple(found)
        small = size_in_patches(height, width, patch, budget, enlarge=False)
        whole = tuple(-(-side // patch) * patch for side in (height, width))
        assert small == (whole if np.prod(whole) <= budget * patch**2 else tuple(found))


@pytest.mark.parametrize("budget", BUDGETS)
def test_layer_by_layer_with_several_sizes_in_a_batch(golden, budget):
    loaded, want = golden
    batch = batch_of(want, budget) | {k: want[k] for k in ("text", "text_mask")}
    (image, text), found = towers_and_outputs(loaded, batch, ("image",), ("text",))
    valid = want[f"{budget}_mask"]
    for ours, theirs in zip(image, want[f"{budget}_layers"][1:], strict=True):
        close(ours[valid], theirs[valid])
    close(text, want["text_layers"][1:])
    close(found["image_embed"], want[f"{budget}_embed"])
    close(found["text_embed"], want["text_embed"])
    logits = found["logit_scale"] * found["image_embed"] @ found["text_embed"].T
    close(logits + found["logit_bias"], want[f"{budget}_logits"])


def test_patches_of_a_row_are_cut_row_by_row():
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    made = transforms.parse("decode | patches(7, 4)")({"image": image}, np.random.default_rng(0))
    assert made["image_grid"].tolist() == [2, 3]
    np.testing.assert_array_equal(uncut(made["image"], made["image_grid"]), image)
    assert (made["image"][1].reshape(4, 4, 3) == image[:4, 4:8]).all()
    two = np.concatenate([made["image"][:6], made["image"][3:6]])  # with its lower half alone
    shown = uncut(two, np.array([[2, 3], [1, 3], [0, 0]]))
    np.testing.assert_array_equal(shown[:, :12], image)
    np.testing.assert_array_equal(shown[:4, 12:], image[4:])
    assert (shown[4:, 12:] == 255).all()


def test_images_of_any_size_are_embedded_alone_and_together(golden):
    loaded, want = golden
    embedder = Embedder(loaded, sizes=(5,))
    images = [loaded.image(want[f"image_{i}"]) for i in IMAGES]
    assert len({image.shape for image in images}) == 4
    close(embedder.images(images), want["16_embed"])
    close(outputs(loaded, {"image": images[0][None]})["image_embed"], want["16_embed"][:1])
    png = io.BytesIO()
    Image.fromarray(want["image_1"]).save(png, "PNG")
    np.testing.assert_array_equal(embedder.prepare(png.getvalue()), images[1])


SCRIPT = """
import sys, torch, transformers as t
from safetensors.numpy import load_file, save_file
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil
folder, golden = sys.argv[1:]
want = load_file(f"{golden}/expected.safetensors")
model, info = t.Siglip2Model.from_pretrained(folder, output_loading_info=True)
assert not info["missing_keys"] and not info["unexpected_keys"], info
processor = Siglip2ImageProcessorPil.from_pretrained(folder)
assert processor.max_num_patches == 16 and processor.patch_size == 4 and processor.resample == 2
pixels = processor([want[f"image_{i}"] for i in range(5)], return_tensors="pt")
pixels["spatial_shapes"] = torch.as_tensor(pixels["spatial_shapes"])
with torch.no_grad():
    out = model.eval()(input_ids=torch.tensor(want["text"]).long(), **pixels)
save_file({"logits": out.logits_per_image.contiguous().numpy()}, f"{folder}/found.safetensors")
"""


def test_a_saved_model_is_the_published_one_and_opens_in_transformers(golden, tmp_path):
    loaded, want = golden
    save_pretrained(loaded, tmp_path)
    theirs, ours = Safetensors(GOLDEN / NAME), Safetensors(tmp_path)
    assert ours.shapes == theirs.shapes
    for name in theirs.shapes:
        np.testing.assert_array_equal(ours.read(name), theirs.read(name))
    again = load(tmp_path)
    assert again.config == loaded.config and again.transform == loaded.transform
    assert again.transform == "decode | patches(16, 4, 'bilinear')"
    rows, more = (x.tokenizer.encode(["A red BUS", "tea"], 10)[0] for x in (loaded, again))
    np.testing.assert_array_equal(rows, more)
    if not Path(TORCH).exists():
        pytest.skip("reopening needs a python with torch: MMJAX_TORCH_PYTHON")
    command = [TORCH, "-c", SCRIPT, tmp_path, GOLDEN / NAME]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    close(Safetensors(tmp_path, "found.safetensors").read("logits"), want["16_logits"])


@pytest.mark.parametrize(
    ("file", "changed", "words"),
    [
        ("config.json", {"vision_config": {"num_patches": 15}}, "num_patches 15, which is no sq"),
        ("config.json", {"vision_config": {"patch_size": 8}}, "patch_size 8, and the image proc"),
        ("config.json", {"vision_config": {"vision_use_head": False}}, "vision_use_head false"),
        ("config.json", {"vision_config": {"num_patches": 25}}, r"position_embedding.*different"),
        ("preprocessor_config.json", {"max_num_patches": 0}, "max_num_patches 0.*from 1 can"),
        (
            "preprocessor_config.json",
            {"image_processor_type": "SiglipImageProcessor", "patch_size": None},
            "makes no patches: only a Siglip2ImageProcessor does",
        ),
        ("preprocessor_config.json", {"do_resize": False}, "do_resize false.*resizes each image"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, file, changed, words):
    shutil.copytree(GOLDEN / NAME, tmp_path, dirs_exist_ok=True)
    content = json.loads((tmp_path / file).read_text())
    for name, value in changed.items():
        content[name] = {**content[name], **value} if isinstance(value, dict) else value
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        load(tmp_path)


def test_batches_of_another_form_are_named(golden):
    loaded, want = golden
    batch = batch_of(want, 9)
    for wrong, words in (
        ({"image": want["image_0"][None]}, "Image size 13x30 is not a multiple of patch_size 4"),
        ({"image": batch["image"]}, r"reads rows of patches.*patches\(budget, 4\)"),
        ({**batch, "image": batch["image"][..., :12]}, "patches of 12 numbers.*the patch size 4"),
    ):
        with pytest.raises(ValueError, match=words):
            loaded.model.apply(loaded.variables, wrong)


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ("decode | patches(0, 4)", "budget 0.*must be 1 or more"),
        ("decode | patches(1_000_000_000, 16)", "exceed the 64,000,000 pixels"),
        ("decode | patches(9, 4, 'cubic')", "no resize method 'cubic'"),
        ("decode | patches(9, 4) | pack(9, 0)", "length 9 and images 0 must be 1 or more"),
    ],
)
def test_steps_that_cannot_be_are_named(chain, words):
    with pytest.raises(ValueError, match=words):
        transforms.parse(chain)


def test_transforms_that_the_published_form_cannot_say_are_refused(golden):
    tower = golden[0].model.image_tower(parent=None)
    for chain in ("decode | resize(16)", "decode | patches(16, 4, enlarge=False)"):
        with pytest.raises(ValueError, match=r"not those of a Siglip2ImageProcessor.*patches\("):
            write_patches(tower, chain)
