"""PaliGemma beside the original: tests/golden/make_paligemma.py."""

import json
import shutil

import numpy as np
import pytest
from parity import GOLDEN, close, fixture, towers_and_outputs

from mmjax.decode.generate import make_generate
from mmjax.decode.settings import Settings
from mmjax.pretrained import describe, save_pretrained
from mmjax.weights.tensor_file import Safetensors

golden = fixture("paligemma", "paligemma2")


def test_every_layer_and_the_logits_of_a_prefix_and_its_answer(golden):
    loaded, want = golden
    batch = {k: want[k] for k in ("text", "text_mask", "text_loss_mask")}
    batch["image"] = np.stack([loaded.image(x) for x in want["image"]])
    (text,), given = towers_and_outputs(loaded, batch, ("text",))
    seen = want["text_mask"]
    close(text[:-1, seen], want["text_layers"][1:-1, seen])  # the last one is after the norm
    close(given["text_logits"][seen][:, ::3], want["text_logits"][seen])


def test_what_it_writes_with_a_cache(golden):
    loaded, want = golden
    written, start = want["written"], 12
    settings = Settings(written.shape[1] - start, end_ids=(), pad_id=0)
    prompts = {"text": written[:, :start], "text_mask": np.ones((1, start), bool)}
    prompts["image"] = want["image"][:1]
    found = make_generate(loaded.model, settings)(loaded.variables, prompts)
    np.testing.assert_array_equal(np.asarray(found.tokens)[0, 0], written[0, start:])


def test_saved_and_loaded_again(golden, tmp_path):
    loaded, _ = golden
    save_pretrained(loaded, tmp_path / "out")
    name = "paligemma2" if loaded.config["text"]["decoder"].get("branch_norm") else "paligemma"
    theirs, ours = Safetensors(GOLDEN / name), Safetensors(tmp_path / "out")
    hub = {k: k.replace("vision_tower.", "vision_tower.vision_model.") for k in theirs.shapes}
    assert ours.shapes == {hub[k]: v for k, v in theirs.shapes.items()}
    for tensor in theirs.shapes:  # norms are stored as differences from 1, which rounds
        np.testing.assert_allclose(ours.read(hub[tensor]), theirs.read(tensor), atol=1e-7)
    again = describe(tmp_path / "out")
    assert again.config == loaded.config and again.transform == loaded.transform


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": {"a": 1}}, "a decoder of type '{'a': 1}'"),
        ({"model_type": "gemma3"}, "a decoder of type 'gemma3' and attention_bias False"),
        ({"layer_types": ["full_attention", "local"]}, "for 3 layers as many of 'sliding_"),
    ],
)
def test_what_cannot_be_loaded_is_refused(changes, words, tmp_path):
    folder = shutil.copytree(GOLDEN / "paligemma2", tmp_path / "x")
    settings = json.loads((folder / "config.json").read_text())
    settings["text_config"] |= changes
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=words):
        describe(folder)
