"""FLAVA and its codebook saved: tensor by tensor what they were, and the same in transformers."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from parity import GOLDEN, close, expected
from safetensors.numpy import load_file

from mmjax.models.systems import make_system
from mmjax.pretrained import Pretrained, load, save_pretrained

TORCH = os.environ.get("MMJAX_TORCH_PYTHON", "build/bench-venv/bin/python")
NAMES = ("flava", "flava_model", "flava_codebook")
SCRIPT = """
import sys, torch, transformers as t
from safetensors.numpy import load_file, save_file
root, golden = sys.argv[1:]
found = {}
for name, kind in {"flava": t.FlavaForPreTraining, "flava_model": t.FlavaModel,
                   "flava_codebook": t.FlavaImageCodebook}.items():
    model, info = kind.from_pretrained(f"{root}/{name}", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], (name, info)
    want = load_file(f"{golden}/{name}/expected.safetensors")
    want = {k: torch.tensor(x) for k, x in want.items()}
    processor = t.AutoImageProcessor.from_pretrained(f"{root}/{name}", backend="pil")
    raw = want["raw_image" if "raw_image" in want else "image"].numpy()
    pixels = processor(list(raw), return_tensors="pt", return_codebook_pixels=True)
    with torch.no_grad():
        if name == "flava_codebook":
            found[name] = pixels["codebook_pixel_values"]
            continue
        if name == "flava":
            found["codebook_pixels"] = pixels["codebook_pixel_values"]
            found["pixels"] = pixels["pixel_values"]
            model = model.flava
        pixels = processor(list(want["image"].numpy()), return_tensors="pt")["pixel_values"]
        given = want["text"].long(), pixels, want["text_mask"].long()
        found[name] = model.eval()(*given).multimodal_embeddings
save_file({k: x.numpy().copy() for k, x in found.items()}, f"{root}/found.safetensors")
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("saved")
    loaded = {name: load(GOLDEN / name) for name in NAMES}
    for name, model in loaded.items():
        save_pretrained(model, root / name)
    return root, loaded


@pytest.mark.parametrize("name", NAMES)
def test_golden_folder_comes_back_tensor_by_tensor(saved, name):
    theirs, ours = (load_file(x / name / "model.safetensors") for x in (GOLDEN, saved[0]))
    assert theirs.keys() == ours.keys()
    for tensor, array in ours.items():
        np.testing.assert_array_equal(array, theirs[tensor].astype(np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_settings_tokens_and_preprocessing_come_back(saved, name):
    before, after = saved[1][name], load(saved[0] / name)
    for x in (before.config, after.config):  # up to the last digit of means and deviations
        _round(x)
    assert before.config == after.config
    assert before.transform.replace(" | center_crop((24, 40))", "") == after.transform
    if before.tokenizer is not None:
        for a, b in zip(*(x.tokenizer.encode(["a red bus"], 9) for x in (before, after))):
            np.testing.assert_array_equal(a, b)


def _round(config):
    for key, x in config.items():
        if isinstance(x, dict):
            _round(x)
        elif key in ("image_mean", "image_std"):
            config[key] = tuple(np.round(x, 6))


@pytest.mark.skipif(not Path(TORCH).exists(), reason="no python with torch: MMJAX_TORCH_PYTHON")
def test_saved_models_in_transformers(saved):
    root, _ = saved
    run = subprocess.run([TORCH, "-c", SCRIPT, root, GOLDEN], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    found = load_file(root / "found.safetensors")
    for name in ("flava", "flava_model"):
        close(found[name], expected(name)["multimodal_tokens"])
    close(found["pixels"], expected("flava")["raw_pixels"])
    close(found["codebook_pixels"], expected("flava")["raw_codebook_pixels"])
    close(found["flava_codebook"], expected("flava_codebook")["raw_codebook_pixels"])


def test_what_the_family_cannot_hold_is_refused(saved, tmp_path):
    flava = saved[1]["flava"]

    def changed(**settings):
        config = {**flava.config, **settings}
        return Pretrained(config, make_system({"model": config}).model, {}, None, None, "", "")

    codebook = {"kind": "random", "patch_size": 8, "image_size": (24, 32), "vocab_size": 20}
    for settings, problem in (
        ({"codebook": codebook}, "no codebook.kind 'RandomQuantizer' (not 'DVAEEncoder')"),
        ({"pooler": False}, "no pooler False (not True)"),
    ):
        with pytest.raises(ValueError) as refused:
            save_pretrained(changed(**settings), tmp_path / "out")
        assert problem in str(refused.value)


def test_damaged_folders_are_refused(tmp_path):
    for place, value, problem in (
        (("config.json", "num_groups"), 3, "an image codebook of 3 groups and 3 channels"),
        (("preprocessor_config.json", "codebook_do_resize"), False, "only uncropped images"),
    ):
        folder = tmp_path / place[1]
        folder.mkdir()
        for file in (GOLDEN / "flava_codebook").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        content = json.loads((folder / place[0]).read_text()) | {place[1]: value}
        (folder / place[0]).write_text(json.dumps(content))
        with pytest.raises(ValueError, match=problem):
            load(folder)
