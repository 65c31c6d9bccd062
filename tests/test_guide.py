"""Guidance by a noised CLIP: what the sampler gets of it, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
from small_clip import small_clip

from mmjax import guide as module
from mmjax.guide import guide


def test_a_clip_reads_the_texts_of_a_batch_with_its_own_tokenizer(monkeypatch):
    loaded = small_clip()
    words, config = loaded.tokenizer, {**loaded.config, "name": "noised_clip"}
    meshes = []

    def load(path, mesh):
        meshes.append(mesh)
        return dataclasses.replace(loaded, config=config)

    monkeypatch.setattr(module.pretrained, "load", load)
    batch = dict(zip(("text", "text_mask"), words.encode(["a red bus", "", "tea"], 20)))
    settings = {"steps": 3, "clip_guidance": 2.0, "clip": "run"}
    left, add = guide(settings, words, "mesh")
    assert meshes == ["mesh"]  # a program takes the variables of one mesh
    assert left["steps"] == 3 and left["clip_guidance"] == 2.0
    plain = {k: x for k, x in config.items() if k != "name"}
    assert json.loads(left["clip"]) == json.loads(json.dumps(plain))
    variables, found = add({"params": 1}, batch)
    assert variables["params"] == 1 and variables["guide"] == loaded.variables
    text, mask = words.encode(["a red bus", "", "tea"], loaded.text_length)
    np.testing.assert_array_equal(found["guide_text"], text)
    np.testing.assert_array_equal(found["guide_text_mask"][[0, 2]], mask[[0, 2]])
    assert not found["guide_text_mask"][1].any()
    with pytest.raises(ValueError, match="towards a text and the batch has none"):
        add({}, {"label": np.zeros(2)})


def test_without_guidance_nothing_is_added_and_other_models_are_refused(monkeypatch):
    left, add = guide({"steps": 3, "clip": "nowhere", "clip_guidance": 0}, None)
    assert left == {"steps": 3} and add({"params": 1}, {"x": 2}) == ({"params": 1}, {"x": 2})
    with pytest.raises(ValueError, match="takes a scale above 0 and the path"):
        guide({"clip_guidance": 2.0}, None)
    with pytest.raises(ValueError, match="sample.clip_guidance is not set"):
        guide({"clip": "run"}, None)
    monkeypatch.setattr(module.pretrained, "load", lambda path, mesh: small_clip())
    with pytest.raises(ValueError, match="'run' holds a 'clip', and only a 'noised_clip' guides"):
        guide({"clip_guidance": 2.0, "clip": "run"}, None)
