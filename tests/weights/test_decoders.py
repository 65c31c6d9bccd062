"""Gemma, GPT-2, Llama, Mistral and Qwen2 beside the originals: make_{gemma,gpt2,llama}.py."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from parity import GOLDEN, close, expected, fixture, layers_and_outputs, outputs
from safetensors.numpy import save_file

from mmjax import generate, sharding
from mmjax.decode.generate import make_generate
from mmjax.decode.prompts import pad_prompts
from mmjax.decode.settings import Settings
from mmjax.pretrained import describe, load, save_pretrained
from mmjax.weights.families import gemma
from mmjax.weights.tensor_file import Safetensors

NAMES = ("gemma", "gemma2", "gpt2", "llama", "llama_tied", "llama3", "mistral", "qwen2")

golden = fixture(*NAMES)


def test_every_layer_and_the_logits_of_padded_texts(golden):
    loaded, want = golden
    batch = {name: want[name] for name in ("text", "text_mask")}
    seen = want["text_mask"]
    found, given = layers_and_outputs(loaded, batch, "text")
    close(found[:-1, seen], want["text_layers"][1:-1, seen])  # the last one is after the norm
    close(given["text_logits"][seen], want["text_logits"][seen])


def test_what_it_writes_with_a_cache(golden):
    loaded, want = golden
    written, start = want["written"], 6
    settings = Settings(written.shape[1] - start, end_ids=(), pad_id=0)
    prompts = {"text": written[:, :start], "text_mask": np.ones((1, start), bool)}
    found = make_generate(loaded.model, settings)(loaded.variables, prompts)
    np.testing.assert_array_equal(np.asarray(found.tokens)[0, 0], written[0, start:])


def test_the_command_continues_their_text():
    loaded = generate.open_model(str(GOLDEN / "gpt2"))
    tokenizer = loaded.tokenizer
    assert tokenizer.bos_id is None and tokenizer.pad_id == tokenizer.eos_id == 0
    settings = Settings(8, end_ids=(0,), pad_id=0)
    batch = pad_prompts(tokenizer.prompts(["a red bus waits"]), 0)
    tokens = np.asarray(make_generate(loaded.model, settings)(loaded.variables, batch).tokens)[0, 0]
    (given,) = generate.make_batches(loaded, "a red bus waits", [])
    text = "".join(generate.make_text_stream(loaded, settings)(given))
    assert text == tokenizer.decode_raw(tokens[tokens != 0])
    with pytest.raises(ValueError, match="holds a 'text_encoder', which does not generate text"):
        generate.open_model(str(GOLDEN / "bert"))


def test_in_bfloat16_and_on_a_mesh():
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    loaded, want = load(GOLDEN / "llama", mesh=mesh, dtype="bfloat16"), expected("llama")
    kernel = loaded.params["text"]["decoder"]["stack"]["layers"]["attention"]["qkv"]["kernel"]
    assert kernel.dtype == "bfloat16" and kernel.addressable_shards[0].data.shape == (3, 8, 4, 1, 6)
    with jax.set_mesh(mesh):
        found = outputs(loaded, {"text": want["text"][:, :8]})["text_logits"]
    close(found, want["text_logits"][:, :8], 0.05)  # bfloat16 has 8 bits
    assert (found.argmax(-1) == want["text_logits"][:, :8].argmax(-1)).mean() > 0.9


def changed(tmp_path, name, **config):
    folder = shutil.copytree(GOLDEN / name, tmp_path / name)
    settings = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


MIXED = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
MIXED["layer_types"] = None


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "has scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"n_layer": 4}, r"Missing tensors: h.3.attn.c_attn.bias"),
        ("gpt2", {"activation_function": "tanh"}, "activation_function is 'tanh'"),
        ("gemma2", {"hidden_activation": {"a": 1}}, "hidden_activation is '{'a': 1}'"),
        ("gemma", {"architectures": {"a": 1}, "num_hidden_layers": 3}, "Missing tensors: model.l"),
        ("gpt2", {"tie_word_embeddings": False}, "Missing tensors: lm_head.weight"),
        (
            "llama",
            {"attention_bias": True},
            r"Missing tensors: model.layers.0.self_attn.k_proj.bias",
        ),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2}}, "depends on the length of"),
        ("llama", {"rope_scaling": {"type": "mrope"}}, "by 'mrope'; linear, llama3 and yarn are"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "by 'linear' without factor"),
        ("llama", {"partial_rotary_factor": 0.5}, "a part of each head"),
        ("qwen2", MIXED | {"layer_types": ["full_attention"]}, "has 1 layer_types for 2 layers"),
        ("gemma2", {"attention_bias": True}, "type 'gemma2' and attention_bias True; gemma and"),
        ("gemma", {"use_bidirectional_attention": True}, "has use_bidirectional_attention True"),
        ("gemma2", {"attn_logit_softcapping": 0.0}, "decoder.attention_cap is 0.0: use a number"),
        ("gemma2", {"query_pre_attn_scalar": -4}, "decoder.query_dim is -4.0: use a number above"),
        ("llama", {"model_type": "lama"}, "model of type 'lama'.*Did you mean 'llama'"),
        ("llama_tied", {"num_key_value_heads": 4}, "config and weights are from different models"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_a_sentence(tmp_path, name, config, words):
    with pytest.raises(ValueError, match=words) as error:
        load(changed(tmp_path, name, **config))
    assert "\n" not in str(error.value)


def test_a_shard_that_is_missing_is_named(tmp_path):
    folder = changed(tmp_path, "llama")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="There is no 'model-00002-of-00002.safetensors'"):
        load(folder)


SCALINGS = json.loads((GOLDEN / "llama3" / "scalings.json").read_text())


@pytest.mark.parametrize("name", SCALINGS)
def test_scaled_rotary_positions(name, tmp_path):
    """The logits of transformers with the same weights and other `rope_parameters`."""
    folder, want = changed(tmp_path, "llama3", rope_parameters=SCALINGS[name]), expected("llama3")
    loaded = load(folder)
    found = outputs(loaded, {k: want[k] for k in ("text", "text_mask")})["text_logits"]
    close(found[want["text_mask"]], want[f"text_logits_{name}"][want["text_mask"]])
    save_pretrained(loaded, tmp_path / "saved")
    assert describe(tmp_path / "saved").config == loaded.config
    # the keys of older files: `rope_theta` apart, and another name of `rope_type`
    older = dict(SCALINGS[name])
    theta, older["type"] = older.pop("rope_theta"), older.pop("rope_type")
    settings = json.loads((folder / "config.json").read_text())
    del settings["rope_parameters"]
    settings |= {"rope_theta": theta, "rope_scaling": older}
    (folder / "config.json").write_text(json.dumps(settings))
    assert describe(folder).config == loaded.config


def rewritten(tmp_path, name, rewrite, **config):
    """A golden folder with other tensors: `rewrite(tensors)` changes the dict in place."""
    given = Safetensors(GOLDEN / name)
    tensors = {k: given.read(k).astype(np.float32) for k in given.shapes}
    rewrite(tensors)
    folder = changed(tmp_path, name, **config)
    for path in folder.glob("model*"):
        path.unlink()
    save_file(tensors, folder / "model.safetensors")
    return folder


EMBEDDINGS = {"gpt2": "wte.weight", "llama_tied": "model.embed_tokens.weight"}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_a_head_that_differs_from_the_embedding_is_used(name, tmp_path):
    """As transformers 5.23 does (tie_weights), although the config ties them."""
    head = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    folder = rewritten(tmp_path, name, lambda x: x.update({"lm_head.weight": head}))
    loaded, want = load(folder), expected(name)
    assert f"note    lm_head.weight differs from {EMBEDDINGS[name]}" in loaded.report
    batch, seen = {k: want[k] for k in ("text", "text_mask")}, want["text_mask"]
    found = outputs(loaded, batch)["text_logits"]
    close(found[seen], (want["text_layers"][-1] @ head.T)[seen])
    save_pretrained(loaded, tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.config == loaded.config and "note" not in again.report
    np.testing.assert_array_equal(again.params["text"]["embed"]["head"], head)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("name", EMBEDDINGS)
def test_the_embedding_may_be_saved_as_the_head(name, both, tmp_path):
    """`safetensors.torch.save_model` of a tied model keeps one of them; older files have both."""

    def rewrite(tensors):
        tensors["lm_head.weight"] = tensors[EMBEDDINGS[name]]
        if not both:
            del tensors[EMBEDDINGS[name]]

    loaded, plain = load(rewritten(tmp_path, name, rewrite)), load(GOLDEN / name)
    assert loaded.config == plain.config
    note = f"equals {EMBEDDINGS[name]}" if both else "is the embedding too"
    assert f"note    lm_head.weight {note}" in loaded.report
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded.params, plain.params))


def without_head(tensors):
    tensors.pop("lm_head.weight", None)
    for name in list(tensors):
        tensors[name.removeprefix("model.")] = tensors.pop(name)


@pytest.mark.parametrize(
    ("name", "kind", "config"),
    [("llama", "LlamaModel", {}), ("gpt2", "GPT2Model", {"tie_word_embeddings": False})],
)
def test_a_bare_model_gives_the_states_of_its_tokens(name, kind, config, tmp_path):
    config["architectures"] = [kind]
    loaded = load(rewritten(tmp_path, name, without_head, **config))
    want = expected(name)
    batch, seen = {k: want[k] for k in ("text", "text_mask")}, want["text_mask"]
    found = outputs(loaded, batch)
    assert set(found) == {"text_tokens"}
    close(found["text_tokens"][seen], want["text_layers"][-1][seen])
    with pytest.raises(ValueError, match="'language_model', which does not generate text"):
        generate.open_model(str(tmp_path / name))
    with pytest.raises(ValueError, match="without a head does not generate"):
        call = make_generate(loaded.model, Settings(4, end_ids=(), pad_id=0))
        call(loaded.variables, batch)
    save_pretrained(loaded, tmp_path / "saved")
    assert load(tmp_path / "saved").config == loaded.config
    names = Safetensors(tmp_path / "saved").shapes
    assert names == {
        k: v for k, v in Safetensors(tmp_path / name).shapes.items() if ".attn.bias" not in k
    }
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["architectures"] == [kind] and saved["tie_word_embeddings"] is False


def test_a_head_is_missing_where_the_architecture_has_one(tmp_path):
    with pytest.raises(ValueError, match="Missing tensors: lm_head.weight"):
        load(rewritten(tmp_path, "llama", without_head))


@pytest.mark.parametrize(
    ("name", "config", "window"),
    [
        ("mistral", {"sliding_window": None}, None),
        ("mistral", {"sliding_window": 48}, None),  # as long as its texts may be
        ("qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 0}, 7),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2}, None),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 7}, None),
        ("qwen2", MIXED, 7),
        ("gemma2", {"layer_types": ["full_attention"] * 3}, None),
        ("gemma2", {"sliding_window": 7, "attn_logit_softcapping": None}, 7),
    ],
)
def test_sliding_windows(name, config, window, tmp_path):
    if name == "qwen2":
        config = dict(config)
        config["layer_types"] = None
    folder = changed(tmp_path, name, **config)
    assert describe(folder).config["text"]["decoder"].get("sliding_window") == window
    save_pretrained(load(folder), tmp_path / "saved")
    assert describe(tmp_path / "saved").config == describe(folder).config


@pytest.mark.parametrize("activation", [None, "gelu", "gelu_pytorch_tanh"])
def test_a_gemma_whose_files_say_gelu_has_its_approximation(activation, tmp_path):
    """As GemmaConfig of transformers 5.23, which does not read hidden_activation."""
    given = {"hidden_act": "gelu", "hidden_activation": activation}
    folder = changed(tmp_path, "gemma", **given, use_bidirectional_attention=False)
    assert describe(folder).config["text"]["decoder"]["activation"] == "gelu_tanh"


def test_a_gemma_with_exact_gelu_is_not_saved_as_one_with_its_approximation(tmp_path):
    text = describe(GOLDEN / "gemma").model.text_decoder(parent=None)
    exact = text.clone(decoder={**text.decoder, "activation": "gelu"})
    with pytest.raises(ValueError, match=r"text.decoder.activation 'gelu' \(not 'gelu_tanh'\)"):
        gemma.published_text("gemma", exact)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_any_of_several_end_tokens_ends_a_text(name, tmp_path):
    """transformers' rule: generation_config.json's `eos_token_id` first, one id or a list."""
    folder = tmp_path / "llama"
    shutil.copytree(GOLDEN / "llama", folder)
    if name == "config.json":
        (folder / "generation_config.json").unlink()
    content = json.loads((folder / name).read_text())
    sampling = {"temperature": 0.6, "top_p": 0.9, "suppress_tokens": [7, 8]}
    given = content | {"eos_token_id": [145, 2]} | sampling
    (folder / name).write_text(json.dumps(given))
    loaded = load(folder)
    assert loaded.tokenizer.end_ids == (0, 145, 2)  # its tokenizer.json ends texts with 0
    save_pretrained(loaded, tmp_path / "saved")
    assert load(tmp_path / "saved").tokenizer.end_ids == (0, 145, 2)
    ids = {"bos_token_id": 1, "eos_token_id": [0, 145, 2], "pad_token_id": 0}
    saved = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    flags = {"output_attentions": False, "output_hidden_states": False, "use_cache": True}
    kept = {**sampling, **flags} if name == "generation_config.json" else {}
    assert saved == ids | kept
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert ids.items() <= saved.items()
    # without a tokenizer, what the folder says
    bare = dataclasses.replace(loaded, tokenizer=None)
    save_pretrained(bare, tmp_path / "bare")
    for file in ("config.json", "generation_config.json"):
        saved = json.loads((tmp_path / "bare" / file).read_text())
        assert saved["eos_token_id"] == [145, 2] and saved["bos_token_id"] == 1


@pytest.mark.parametrize(("name", "setting"), [("gpt2", "n_embd"), ("llama", "hidden_size")])
@pytest.mark.parametrize("value", ["24", {}, 0])
def test_settings_of_another_type_are_refused_in_a_sentence(tmp_path, name, setting, value):
    folder = shutil.copytree(GOLDEN / name, tmp_path / name)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {setting: value}))
    with pytest.raises(ValueError, match=f"config.json' has {setting} {value!r}, where"):
        describe(folder)
