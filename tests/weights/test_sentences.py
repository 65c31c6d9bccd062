"""Folders of sentence-transformers as it reads them: tests/golden/make_sentences.py."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from parity import GOLDEN, close, outputs
from sentence_folder import sentence_folder

import mmjax
from mmjax.layers.pooling import pool_tokens
from mmjax.pretrained import describe
from mmjax.weights import sentences

WANT = json.loads((GOLDEN / "sentences.json").read_text())
GELU = {"in_features": 24, "out_features": 16, "bias": True}
GELU |= {"activation_function": "torch.nn.modules.activation.GELU"}
CASES = {case["name"]: case for case in WANT["cases"]}


@pytest.fixture(scope="module")
def whole():
    """minilm/, whose weights all cases share, and its tokens' vectors as a function of a batch."""
    loaded = mmjax.load(GOLDEN / "minilm")
    return loaded, jax.jit(lambda batch: loaded.model.apply(loaded.variables, batch)["text_tokens"])


@pytest.mark.parametrize("name", [name for name in CASES if "dense" not in name])
def test_sentences_as_in_sentence_transformers(tmp_path, whole, name):
    case = CASES[name]
    loaded = describe(sentence_folder(tmp_path, case["files"]))
    assert loaded.text_length == case["length"]
    text, mask = loaded.tokenizer.encode(WANT["texts"], loaded.text_length)
    padded = [np.pad(x, ((0, 0), (0, 20 - x.shape[1]))) for x in (text, mask)]
    tokens = whole[1](dict(zip(("text", "text_mask"), padded)))
    features = pool_tokens(tokens, loaded.config["text"]["pool"], padded[1])
    close(np.asarray(features), np.asarray(case["features"]))
    # Saved and loaded again it is the same.
    loaded = dataclasses.replace(loaded, params=whole[0].params)
    mmjax.save_pretrained(loaded, tmp_path / "saved")
    again = describe(tmp_path / "saved")
    assert again.config == loaded.config and again.text_length == loaded.text_length
    assert again.tokenizer.prefix == loaded.tokenizer.prefix and again.prompts == loaded.prompts
    np.testing.assert_array_equal(again.tokenizer.encode(WANT["texts"], again.text_length)[0], text)


@pytest.mark.parametrize("name", [name for name in CASES if "dense" in name])
def test_dense_modules_after_the_pooling(tmp_path, name):
    case = CASES[name]
    loaded = mmjax.load(sentence_folder(tmp_path, case["files"]))
    batch = dict(zip(("text", "text_mask"), loaded.tokenizer.encode(WANT["texts"], 16)))
    close(outputs(loaded, batch)["text_features"], np.asarray(case["features"]))
    mmjax.save_pretrained(loaded, tmp_path / "saved")
    again = mmjax.load(tmp_path / "saved")
    assert again.config == loaded.config
    jax.tree.map(np.testing.assert_array_equal, again.params, loaded.params)
    first = "2_Dense/config.json"
    saved = json.loads((tmp_path / "saved" / first).read_text())
    assert saved == case["files"][first]


def test_the_default_prompt_is_read_back_under_its_name(tmp_path, whole):
    loaded = describe(sentence_folder(tmp_path, CASES["default prompt"]["files"]))
    assert loaded.tokenizer.prefix == "a cup of "
    assert loaded.prompts == {"query": "a cup of ", "document": "", "other": "red "}
    loaded = dataclasses.replace(loaded, params=whole[0].params)
    mmjax.save_pretrained(loaded, tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / sentences.PROMPTS).read_text())
    assert saved["default_prompt_name"] == "query"


def test_without_modules_it_is_a_plain_encoder(tmp_path):
    files = {sentences.PROMPTS: {"prompts": {"x": "red "}, "default_prompt_name": "x"}}
    plain = sentence_folder(tmp_path, files | {"sentence_bert_config.json": {"max_seq_length": 5}})
    (plain / "modules.json").unlink()
    loaded = describe(plain)
    assert (loaded.text_length, loaded.tokenizer.prefix, loaded.prompts) == (20, "", {})


def test_a_clip_of_sentence_transformers_is_the_clip_inside(tmp_path):
    shutil.copytree(GOLDEN / "clip", tmp_path / "0_CLIPModel")
    module = {"idx": 0, "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    (tmp_path / "modules.json").write_text(json.dumps([module]))
    assert describe(tmp_path).config == describe(GOLDEN / "clip").config


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"1_Pooling/config.json": {"pooling_mode": ["mean", "max"]}},
            r"pools its tokens by 'mean\+max'; one of cls, max",
        ),
        ({"1_Pooling/config.json": {"pooling_mode": "median"}}, "by 'median'; one of cls"),
        (
            {"modules.json": [{"type": f"s.{x}", "path": ""} for x in ("Transformer", "Dense")]},
            "has the modules Transformer, Dense; Transformer, Pooling, any number of Dense",
        ),
        (
            CASES["dense"]["files"] | {"2_Dense/config.json": GELU},
            "activation.GELU.* one of Tanh, Identity, ReLU, Sigmoid can be loaded",
        ),
        ({"modules.json": [{"path": ""}]}, "is not a list of modules with types"),
        ({sentences.PROMPTS: {"prompts": {"query": 3}}}, "they must be texts by name"),
        ({sentences.SETTINGS[0]: {"max_seq_length": "9"}}, "max_seq_length in .* is '9'"),
        ({"tokenizer_config.json": {"tokenizer_class": 3}}, "tokenizer_class in .* is 3"),
        (
            {sentences.SETTINGS[0]: {}, "tokenizer_config.json": {"model_max_length": "9"}},
            "model_max_length in .* is '9': it must be a number",
        ),
        (
            {sentences.PROMPTS: {"default_prompt_name": "passage", "prompts": {"search": "x"}}},
            "default_prompt_name 'passage' and no such prompt; there are query, document, search",
        ),
        (
            {
                sentences.PROMPTS: {"default_prompt_name": "a", "prompts": {"a": "x"}},
                "1_Pooling/config.json": {"pooling_mode": "mean", "include_prompt": False},
            },
            "default prompt that its pooling leaves out",
        ),
    ],
)
def test_what_is_refused(tmp_path, files, words):
    with pytest.raises(ValueError, match=words):
        describe(sentence_folder(tmp_path, files))
