"""PaliGemma beside the original: tests/golden/make_paligemma.py."""

import json
import shutil

import numpy as np
import pytest
from parity import GOLDEN, close, expected, towers_and_outputs

from mmjax.decode.generate import make_generate
from mmjax.decode.settings import Settings
from mmjax.pretrained import describe, load, save_pretrained
from mmjax.weights.tensor_file import Safetensors

LOADED, WANT = load(GOLDEN / "paligemma"), expected("paligemma")


def test_every_layer_and_the_logits_of_a_prefix_and_its_answer():
    batch = {k: WANT[k] for k in ("text", "text_mask", "text_loss_mask")}
    batch["image"] = np.stack([LOADED.image(x) for x in WANT["image"]])
    (text,), given = towers_and_outputs(LOADED, batch, ("text",))
    seen = WANT["text_mask"]
    close(text[:-1, seen], WANT["text_layers"][1:-1, seen])  # the last one is after the norm
    close(given["text_logits"][seen][:, ::3], WANT["text_logits"][seen])


def test_what_it_writes_with_a_cache():
    written, start = WANT["written"], 12
    settings = Settings(written.shape[1] - start, end_ids=(), pad_id=0)
    prompts = {"text": written[:, :start], "text_mask": np.ones((1, start), bool)}
    prompts["image"] = WANT["image"][:1]
    found = make_generate(LOADED.model, settings)(LOADED.variables, prompts)
    np.testing.assert_array_equal(np.asarray(found.tokens)[0, 0], written[0, start:])


def test_saved_and_loaded_again(tmp_path):
    save_pretrained(LOADED, tmp_path / "out")
    theirs, ours = Safetensors(GOLDEN / "paligemma"), Safetensors(tmp_path / "out")
    hub = {k: k.replace("vision_tower.", "vision_tower.vision_model.") for k in theirs.shapes}
    assert ours.shapes == {hub[k]: v for k, v in theirs.shapes.items()}
    for tensor in theirs.shapes:  # norms are stored as differences from 1, which rounds
        np.testing.assert_allclose(ours.read(hub[tensor]), theirs.read(tensor), atol=1e-7)
    again = describe(tmp_path / "out")
    assert again.config == LOADED.config and again.transform == LOADED.transform


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gemma2"}, "a decoder of type 'gemma2' and attention_bias False"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "scales"),
    ],
)
def test_what_cannot_be_loaded_is_refused(changes, words, tmp_path):
    folder = shutil.copytree(GOLDEN / "paligemma", tmp_path / "x")
    settings = json.loads((folder / "config.json").read_text())
    settings["text_config"] |= changes
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=words):
        describe(folder)
