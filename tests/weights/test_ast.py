"""AST beside the original implementation: tests/golden/make_ast.py; loading and saving."""

import io
import json
import shutil

import numpy as np
import pytest
import soundfile
from einops import rearrange
from parity import GOLDEN, close, expected, fixture, layers_and_outputs

from mmjax import config as configs
from mmjax.data.transforms import own_steps
from mmjax.pretrained import load, save_pretrained
from mmjax.weights.tensor_file import Safetensors

golden = fixture("ast", "ast_features")


def test_layer_by_layer_and_at_the_end(golden):
    loaded, want = golden
    blocks, found = layers_and_outputs(loaded, {"audio": want["audio"]})
    grid = loaded.model.grid(loaded.model.frames, loaded.model.bins)
    theirs = want["layers"][1:]  # their patches are in the order of the bins
    patches = rearrange(theirs[:, :, 2:], "l b (f t) d -> l b (t f) d", t=grid[0])
    close(blocks, np.concatenate([theirs[:, :, :2], patches], axis=2))
    if "logits" in want:
        close(found["logits"], want["logits"])
    else:
        close(found["audio_features"], want["features"])


def test_the_transform_is_that_of_the_feature_extractor(golden):
    loaded, want = golden
    for clip, audio in zip(("short", "long"), want["audio"]):
        file = io.BytesIO()
        soundfile.write(file, want[clip], 16000, format="WAV", subtype="FLOAT")
        found = loaded.audio(file.getvalue())
        np.testing.assert_allclose(found["audio"], audio, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["ast", "ast_features"])
def test_saved_tensor_by_tensor(name, tmp_path):
    before = load(GOLDEN / name)
    save_pretrained(before, tmp_path / "saved")
    theirs, ours = Safetensors(GOLDEN / name), Safetensors(tmp_path / "saved")
    assert ours.shapes == theirs.shapes
    for tensor in theirs.shapes:
        wide = theirs.read(tensor).astype(np.float32)
        np.testing.assert_array_equal(ours.read(tensor), wide)
    after = load(tmp_path / "saved")
    assert (after.config, after.audio_transform) == (before.config, before.audio_transform)
    theirs, ours = (
        json.loads((folder / "preprocessor_config.json").read_text())
        for folder in (GOLDEN / name, tmp_path / "saved")
    )
    if theirs["do_normalize"]:
        assert {k: v for k, v in theirs.items() if k in ours} == ours


def test_files_that_cannot_be_used_are_named(tmp_path):
    folder = shutil.copytree(GOLDEN / "ast", tmp_path / "ast")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"time_stride": 6}))
    with pytest.raises(ValueError, match="config and weights are from different models"):
        load(folder)
    assert expected("ast")["audio"].shape == (2, 61, 27)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("ast_esc10", "waveform(5.135) | kaldi_fbank(512)"),
        ("clap_esc10", "clap_input(5, 64, 32000, 1024, 640, crop='start')"),
        ("vilt_emoji_pairs", ""),
    ],
)
def test_a_run_prepares_audio_as_its_evaluators_or_its_training(name, steps):
    config = configs.load(f"{GOLDEN.parents[1]}/configs/{name}.py")
    assert own_steps.audio_steps(config) == steps
    with config.unlocked():
        config.evals = {}
    assert own_steps.audio_steps(config) == steps
