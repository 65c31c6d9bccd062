"""GLIDE beside the original code: tests/golden/make_glide.py."""

import json
import shutil

import jax
import numpy as np
import pytest
from parity import GOLDEN, close, expected, fixture, outputs
from safetensors.numpy import load_file

from mmjax.models.systems import make_system
from mmjax.pretrained import load, save_pretrained
from mmjax.variables import abstract_variables
from mmjax.weights.families import glide
from mmjax.weights.published import Published

golden = fixture("glide", "glide_upsampler", "glide_inpaint")


def test_texts_and_predictions_are_those_of_the_original(golden):
    loaded, want = golden
    text = {k: want[k] for k in ("text", "text_mask")}
    found = outputs(loaded, text)
    close(found["condition"], want["condition"])
    close(found["context"], want["context"])
    batch = {**text, **{k: want[k] for k in ("noised", "time", "image", "low_res") if k in want}}
    if "inpaint_mask" in want:
        batch["inpaint_mask"] = want["inpaint_mask"][..., 0] > 0
    found = outputs(loaded, batch)
    prediction = np.concatenate([found["prediction"], found["variance"]], axis=-1)
    close(prediction, want["output"])


def test_a_missing_text_is_one_without_tokens():
    loaded, want = load(GOLDEN / "glide"), expected("glide")
    text = {"text": want["text"], "text_mask": np.ones_like(want["text_mask"])}
    assert not want["text_mask"][2].any()
    found = outputs(loaded, {**text, "text_present": np.asarray([True, True, False])})
    close(found["context"][2], want["context"][2])
    assert np.abs(found["context"][0] - want["context"][0]).max() > 1e-3


@pytest.mark.parametrize("name", ["glide", "glide_upsampler"])
def test_a_saved_folder_has_the_tensors_of_the_original(name, tmp_path):
    save_pretrained(load(GOLDEN / name), tmp_path / name)
    theirs, ours = (load_file(x / name / "model.safetensors") for x in (GOLDEN, tmp_path))
    assert theirs.keys() == ours.keys()
    for key, want in theirs.items():
        np.testing.assert_array_equal(ours[key], want, err_msg=key)
    config, saved = (json.loads((x / name / "config.json").read_text()) for x in (GOLDEN, tmp_path))
    assert {**glide.SETTINGS, **config, **glide.FIXED} == saved


def test_what_a_glide_cannot_be_is_refused(tmp_path):
    folder = shutil.copytree(GOLDEN / "glide", tmp_path / "glide")
    config = json.loads((folder / "config.json").read_text())
    for change, said in (
        ({"xf_final_ln": False}, "has xf_final_ln False"),
        ({"noise_schedule": "sigmoid"}, "unknown noise_schedule 'sigmoid'"),
        ({"channel_mult": ""}, "has image_size 8 without channel_mult"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=said):
            load(folder)


GREAT = {"num_channels": 512, "xf_width": 2048, "xf_layers": 24, "xf_heads": 32}


@pytest.mark.parametrize(
    ("settings", "count"),
    [({}, 385_030_726), (glide.UPSAMPLER, 398_361_286), (GREAT, 3_554_414_086)],
)
def test_the_published_sizes(settings, count, tmp_path):
    """The released base and upsampler, and the paper's 3.5 billion."""
    config = glide.model_config(
        Published(tmp_path, {"model_type": "glide", **settings}, None, None)
    )
    system = make_system({"model": config})
    params = abstract_variables(system.model, system.spec)["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == count
