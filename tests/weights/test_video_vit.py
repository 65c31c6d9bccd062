"""ViViT and VideoMAE beside the original code: tests/golden/make_video_vit.py; loading, saving."""

import json
import shutil

import numpy as np
import pytest
from parity import GOLDEN, close, fixture, layers_and_outputs

from mmjax.models.systems import make_system
from mmjax.pretrained import load, save_pretrained
from mmjax.weights.tensor_file import Safetensors

NAMES = ("vivit", "vivit_features", "videomae", "videomae_first", "videomae_encoder")
golden = fixture(*NAMES)


def prepared(loaded, raw):
    """The frames [B, T, h, w, 3] uint8 of videos."""
    return np.stack([[loaded.image(frame) for frame in video] for video in raw])


def test_the_frames_are_prepared_as_by_the_original(golden):
    loaded, want = golden
    video = prepared(loaded, want["raw"]).astype(np.float32) / 255
    mean, std = (
        np.asarray(x, np.float32) for x in (loaded.model.image_mean, loaded.model.image_std)
    )
    pixels = np.moveaxis((video - mean) / std, -1, 2)
    np.testing.assert_allclose(pixels, want["pixels"], atol=1e-5)


def test_layer_by_layer_and_at_the_end(golden):
    loaded, want = golden
    video = prepared(loaded, want["raw"])
    blocks, found = layers_and_outputs(loaded, {"video": video})
    close(blocks, want["layers"][1:])
    if "logits" in want:
        close(found["logits"], want["logits"])
    else:
        close(found["video_features"], want["features"])


@pytest.mark.parametrize("name", NAMES)
def test_saved_tensor_by_tensor(name, tmp_path):
    before = load(GOLDEN / name)
    save_pretrained(before, tmp_path / "saved")
    theirs, ours = Safetensors(GOLDEN / name), Safetensors(tmp_path / "saved")
    names = {x: x for x in theirs.shapes}
    if name == "videomae_encoder":  # saved as the encoder alone
        names = {x: x.removeprefix("videomae.") for x in names if x.startswith("videomae.")}
    assert {names[x]: theirs.shapes[x] for x in names} == ours.shapes
    for tensor, ours_name in names.items():
        wide = theirs.read(tensor).astype(np.float32)
        np.testing.assert_array_equal(ours.read(ours_name), wide)
    after = load(tmp_path / "saved")
    assert after.transform == before.transform
    means = [x.pop(k) for x in (after.config, before.config) for k in ("image_mean", "image_std")]
    np.testing.assert_allclose(means[:2], means[2:], rtol=1e-6)
    assert after.config == before.config


def test_files_that_cannot_be_used_are_named(tmp_path):
    folder = shutil.copytree(GOLDEN / "vivit", tmp_path / "vivit")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tubelet_size": [2, 8]}))
    with pytest.raises(ValueError, match="tubelet_size .2, 8.: three numbers are needed"):
        load(folder)
    (folder / "config.json").write_text(json.dumps(config | {"num_frames": 7}))
    with pytest.raises(ValueError, match="7 frames of 24x16 pixels is not a multiple"):
        load(folder)


SMALL = {"name": "video_vit", "frames": 4, "image_size": (8, 8), "tubelet": (2, 4, 4)}
SMALL |= {"width": 16, "depth": 1, "heads": 2, "mlp_dim": 24}


def test_what_no_published_model_has_is_refused(tmp_path):
    import dataclasses

    base = load(GOLDEN / "vivit")
    model = make_system({"model": SMALL | {"temporal_depth": 1}, "loss": {}, "batch_size": 0}).model
    with pytest.raises(ValueError, match="no temporal_depth 1"):
        save_pretrained(dataclasses.replace(base, model=model), tmp_path / "x")
