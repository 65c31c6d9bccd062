"""GPT-2 and Llama beside the originals: tests/golden/make_{gpt2,llama}.py."""

import json
import shutil

import jax
import numpy as np
import pytest
from parity import GOLDEN, close, expected, fixture, layers, outputs

from mmjax import generate, sharding
from mmjax.decode.generate import make_generate
from mmjax.decode.prompts import pad_prompts
from mmjax.decode.settings import Settings
from mmjax.pretrained import load, save_pretrained

NAMES = ("gpt2", "llama", "llama_tied")

golden = fixture(*NAMES)


def test_every_layer_and_the_logits_of_padded_texts(golden):
    loaded, want = golden
    batch = {name: want[name] for name in ("text", "text_mask")}
    seen = want["text_mask"]
    found = layers(loaded, batch, "text")
    close(found[:-1, seen], want["text_layers"][1:-1, seen])  # the last one is after the norm
    close(outputs(loaded, batch)["text_logits"][seen], want["text_logits"][seen])


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


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "has scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"n_layer": 4}, r"Missing tensors: h.3.attn.c_attn.bias"),
        ("gpt2", {"activation_function": "tanh"}, "activation_function is 'tanh'"),
        ("gpt2", {"tie_word_embeddings": False}, "Missing tensors: lm_head.weight"),
        ("llama", {"attention_bias": True}, "has attention_bias True"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 8}}, "by 'llama3'; only"),
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


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_any_of_several_end_tokens_ends_a_text(name, tmp_path):
    """transformers' rule: generation_config.json's `eos_token_id` first, one id or a list."""
    folder = tmp_path / "llama"
    shutil.copytree(GOLDEN / "llama", folder)
    if name == "config.json":
        (folder / "generation_config.json").unlink()
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | {"eos_token_id": [145, 2]}))
    loaded = load(folder)
    assert loaded.tokenizer.end_ids == (0, 145, 2)  # its tokenizer.json ends texts with 0
    save_pretrained(loaded, tmp_path / "saved")
    assert load(tmp_path / "saved").tokenizer.end_ids == (0, 145, 2)
    saved = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert saved == {"eos_token_id": [0, 145, 2], "pad_token_id": 0}
