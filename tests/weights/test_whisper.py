"""Whisper beside transformers': tests/golden/make_whisper.py."""

import json
import math
import os
import shutil
import struct
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from parity import GOLDEN, close, expected, layers_and_outputs, outputs
from safetensors.numpy import load_file, save_file

from mmjax.data.text.special_tokens import prompt, special_tokens
from mmjax.models.systems import make_system
from mmjax.pretrained import load, save_pretrained
from mmjax.speech.programs import cross_attention
from mmjax.speech.words import evidence, warp
from mmjax.system import Context
from mmjax.variables import abstract_variables
from mmjax.weights.families import whisper, whisper_ct2
from mmjax.weights.tensor_file import Safetensors

TORCH = os.environ.get("MMJAX_TORCH_PYTHON", "build/bench-venv/bin/python")
NAMES = ("whisper", "whisper_words")


@pytest.fixture(scope="module", params=NAMES)
def golden(request):
    """A golden folder: its name, the model, the expected outputs, what it gives for them."""
    loaded, want = load(GOLDEN / request.param), expected(request.param)
    batch = {k: want[k] for k in ("audio", "text", "text_mask")}
    return request.param, loaded, want, layers_and_outputs(loaded, batch, "text")


def test_the_encoder_layer_by_layer(golden):
    _, loaded, want, _ = golden
    found, given = layers_and_outputs(loaded, {"audio": want["audio"]}, "audio")
    close(found[:-1], want["audio_layers"][1:-1])  # their last one is normalized
    close(given["audio_tokens"], want["audio_tokens"])


def test_the_decoder_layer_by_layer(golden):
    _, loaded, want, (found, given) = golden
    mask = want["text_mask"]
    close(found[:-1][:, mask], want["text_layers"][1:-1][:, mask])
    close(given["text_logits"][mask], want["text_logits"][mask])
    batch = {k: want[k] for k in ("audio_tokens", "text", "text_mask")}
    close(outputs(loaded, batch)["text_logits"][mask], want["text_logits"][mask])


def test_the_loss_is_that_of_transformers(golden):
    _, loaded, want, (_, given) = golden
    system = make_system({"model": loaded.config, "loss": {}})
    batch = {k: want[k] for k in ("text", "text_mask")}
    value, weight = map(
        np.asarray, system.loss(given, batch, Context(0, None, None, {}))["captioning"]
    )
    close((value * weight).sum() / weight.sum(), want["loss"])


def test_greedy_tokens_with_a_cache():
    loaded, want = load(GOLDEN / "whisper_words"), expected("whisper_words")
    decode = {"max_new_tokens": want["greedy"].shape[1], "end_ids": ()}
    batch = {"audio": want["audio"], "text": want["prompt"]}
    batch["text_mask"] = np.ones_like(want["prompt"], bool)
    system = make_system({"model": loaded.config, "loss": {}})
    found = system.generate(loaded.tokenizer, decode)(loaded.variables, batch)
    np.testing.assert_array_equal(found.tokens[:, 0], want["greedy"])


def test_times_of_tokens_by_cross_attention():
    loaded, want = load(GOLDEN / "whisper_words"), expected("whisper_words")
    batch = {k: want[k][:1] for k in ("audio", "text", "text_mask")}
    _, made = jax.jit(lambda v, b: loaded.model.apply(v, b, mutable=["intermediates"]))(
        loaded.variables, batch
    )
    found = cross_attention(made["intermediates"])
    close(found, want["cross_attention"][:, 0])
    cost = -evidence(np.asarray(found), loaded.generation["alignment_heads"], found.shape[-1])
    np.testing.assert_allclose(0.02 * warp(cost), want["token_times"][0, :-1], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "sizes", "count"),
    [
        ("tiny", (384, 4, 4, 6, 80, 51865), 37_184_640),
        ("tiny.en", (384, 4, 4, 6, 80, 51864), 37_184_256),
        ("base", (512, 6, 6, 8, 80, 51865), 71_825_920),
        ("small", (768, 12, 12, 12, 80, 51865), 240_582_912),
        ("medium", (1024, 24, 24, 16, 80, 51865), 762_321_920),
        ("large-v2", (1280, 32, 32, 20, 80, 51865), 1_541_384_960),
        ("large-v3", (1280, 32, 32, 20, 128, 51866), 1_541_570_560),
        ("turbo", (1280, 32, 4, 20, 128, 51866), 806_958_080),
    ],
)
def test_parameter_counts(name, sizes, count):
    """Without the fixed positions of the encoder, which transformers counts: 1,500 x width."""
    width, encoder, decoder, heads, mels, vocabulary = sizes
    stack = {"heads": heads, "mlp_dim": 4 * width}
    audio = {"mels": mels, "length": 1500, "width": width, "depth": encoder, **stack}
    text = {"vocab_size": vocabulary, "length": 448, "width": width}
    text |= {"decoder": {"depth": decoder, **stack}}
    system = make_system({"model": {"name": "whisper", "audio": audio, "text": text}, "loss": {}})
    shapes = abstract_variables(system.model, system.spec)["params"]
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)) == count


# ---- saving


@pytest.mark.parametrize("name", NAMES)
def test_golden_folder_comes_back(tmp_path, name):
    before = load(GOLDEN / name)
    save_pretrained(before, tmp_path / "saved")
    theirs, ours = Safetensors(GOLDEN / name), Safetensors(tmp_path / "saved")
    assert ours.shapes == theirs.shapes
    for tensor in ours.shapes:
        want = theirs.read(tensor).astype(np.float32)
        exact = tensor != f"model.{whisper.POSITIONS}"  # in half precision there
        np.testing.assert_allclose(ours.read(tensor), want, rtol=0, atol=0 if exact else 5e-4)
    after = load(tmp_path / "saved")
    assert after.config == before.config
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    published = json.loads((GOLDEN / name / "config.json").read_text())
    assert {k: published[k] for k in config} == config
    if name == "whisper":
        assert after.tokenizer is None
        return
    for a, b in zip(*(x.tokenizer.encode(["a red bus", "tea"], 9) for x in (before, after))):
        np.testing.assert_array_equal(a, b)
    special = special_tokens(after.tokenizer, after.generation)
    assert special == special_tokens(before.tokenizer, before.generation)
    assert after.generation["lang_to_id"] == {"<|en|>": 302, "<|zh|>": 303, "<|fr|>": 304}
    kept = {k: after.generation[k] for k in before.generation}
    assert kept == before.generation


def test_what_the_family_cannot_hold_is_refused():
    model = load(GOLDEN / "whisper").model
    for changed, reason in (
        ({"text": {**model.text, "tied": False}}, "text.tied False"),
        ({"audio": {**model.audio, "activation": "relu"}}, "text.decoder.activation 'gelu'"),
        ({"audio": {**model.audio, "epsilon": 1e-6}}, "audio.epsilon 1e-06"),
    ):
        with pytest.raises(ValueError, match=reason):
            whisper.published_config(model.clone(**changed))


SCRIPT = """
import sys
import torch, transformers as t
from safetensors.torch import load_file, save_file
t.utils.logging.set_verbosity_error()
root, golden, found = sys.argv[1], sys.argv[2], {}
for name in ("whisper", "whisper_words"):
    kind = t.WhisperForConditionalGeneration
    model, info = kind.from_pretrained(f"{root}/{name}", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], (name, info)
    want = load_file(f"{golden}/{name}/expected.safetensors")
    with torch.no_grad():
        found[name] = model.eval()(want["audio"].transpose(1, 2).contiguous(),
                                   decoder_input_ids=want["text"].long(),
                                   decoder_attention_mask=want["text_mask"].long()).logits
processor = t.WhisperProcessor.from_pretrained(f"{root}/whisper_words")
processor.tokenizer.set_prefix_tokens(language="zh", task="translate")
found["tokens"] = torch.tensor(processor.tokenizer(" a red bus").input_ids)
assert processor.feature_extractor.feature_size == 5
assert model.generation_config.lang_to_id == {"<|en|>": 302, "<|zh|>": 303, "<|fr|>": 304}
save_file(found, f"{root}/found.safetensors")
"""


@pytest.mark.skipif(not Path(TORCH).exists(), reason="no python with torch: MMJAX_TORCH_PYTHON")
def test_saved_models_in_transformers(tmp_path):
    for name in NAMES:
        save_pretrained(load(GOLDEN / name), tmp_path / name)
    run = subprocess.run([TORCH, "-c", SCRIPT, tmp_path, GOLDEN], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    found = load_file(tmp_path / "found.safetensors")
    for name in NAMES:
        mask = expected(name)["text_mask"]
        close(found[name][mask], expected(name)["text_logits"][mask])
    words = load(GOLDEN / "whisper_words").tokenizer
    ids = [*prompt(words, "zh", "translate"), *words.prompts([" a red bus"])[0][1:], words.eos_id]
    np.testing.assert_array_equal(found["tokens"], ids)


# ---- other layouts


def changed_folder(tmp_path, tensors=None, **config):
    """A copy of the golden folder with other tensors and settings."""
    folder = tmp_path / "changed"
    shutil.copytree(GOLDEN / "whisper", folder)
    if tensors is not None:
        save_file(tensors, folder / "model.safetensors")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def same_params(a, b):
    """Assert that two loaded models have the same parameters."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


OPENAI = {
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "self_attn.q_proj": "attn.query",
    "self_attn.k_proj": "attn.key",
    "self_attn.v_proj": "attn.value",
    "self_attn.out_proj": "attn.out",
    "encoder_attn.q_proj": "cross_attn.query",
    "encoder_attn.k_proj": "cross_attn.key",
    "encoder_attn.v_proj": "cross_attn.value",
    "encoder_attn.out_proj": "cross_attn.out",
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "final_layer_norm": "mlp_ln",
    "encoder.layer_norm": "encoder.ln_post",
    "decoder.layer_norm": "decoder.ln",
    "embed_tokens": "token_embedding",
    "embed_positions.weight": "positional_embedding",
    ".layers.": ".blocks.",
    "model.": "",
}


def test_openai_names_and_sizes(tmp_path):
    """The renames in the other direction, as openai/whisper's model.py has the modules."""
    tensors = {}
    for name, x in load_file(GOLDEN / "whisper" / "model.safetensors").items():
        for theirs, ours in OPENAI.items():
            name = name.replace(theirs, ours)
        tensors[name] = x
    folder = changed_folder(tmp_path, tensors)
    sizes = {"n_mels": 7, "n_audio_ctx": 77, "n_audio_state": 24, "n_audio_head": 3}
    sizes |= {"n_audio_layer": 2, "n_vocab": 100, "n_text_ctx": 30, "n_text_state": 24}
    sizes |= {"n_text_head": 4, "n_text_layer": 3}
    (folder / "config.json").write_text(json.dumps(sizes))
    found, want = load(folder), load(GOLDEN / "whisper")
    assert found.config == want.config
    same_params(found.params, want.params)
    # Without sizes they follow from the shapes; only of heads one guesses that they have 64.
    (folder / "config.json").write_text('{"model_type": "whisper"}')
    found = load(folder)
    assert found.config["audio"] == {**want.config["audio"], "heads": 1}
    assert "sizes are those of the tensors" in found.report


@pytest.mark.parametrize("quantized", [False, True])
def test_ctranslate2(tmp_path, quantized):
    """A model.bin in fp16, or with the maps of the layers in int8."""
    want = load(GOLDEN / "whisper")
    folder = tmp_path / "ct2"
    folder.mkdir()
    tensors = {
        k.removeprefix("model."): v
        for k, v in load_file(GOLDEN / "whisper" / "model.safetensors").items()
    }
    write_model_bin(folder / "model.bin", ctranslate2_tensors(tensors, quantized))
    given = {"suppress_ids": [1, 2], "suppress_ids_begin": [5], "alignment_heads": [[1, 0]]}
    (folder / "config.json").write_text(json.dumps({**given, "lang_ids": [7]}))
    found = load(folder)
    assert found.config == want.config
    assert found.generation == {
        "suppress_tokens": [1, 2],
        "begin_suppress_tokens": [5],
        "alignment_heads": [[1, 0]],
    }
    if not quantized:
        same_params(found.params, want.params)
        return
    step = max(np.abs(x).max() for x in tensors.values()) / 127
    for a, b in zip(*(jax.tree.leaves(x.params) for x in (found, want))):
        np.testing.assert_allclose(a, b, rtol=0, atol=0.51 * step)


def ctranslate2_tensors(tensors, quantized):
    """The tensors as CTranslate2's converter names and joins them, with its settings."""
    heads = {"encoder": 3, "decoder": 4}
    made = {f"{x}/num_heads": np.int16(n) for x, n in heads.items()}
    made["decoder/activation"] = np.int8(3)
    for tower in heads:
        top = {"layer_norm": ("gamma", "beta")}
        if tower == "encoder":
            top |= {"conv1": ("weight", "bias"), "conv2": ("weight", "bias")}
        for name, (weight, bias) in top.items():
            made[f"{tower}/{name}/{weight}"] = tensors[f"{tower}.{name}.weight"]
            made[f"{tower}/{name}/{bias}"] = tensors[f"{tower}.{name}.bias"]
        positions = tensors[f"{tower}.embed_positions.weight"]
        made[f"{tower}/position_encodings/encodings"] = positions
        depth = {"encoder": 2, "decoder": 3}[tower]
        for i in range(depth):
            layer, ours = f"{tower}.layers.{i}", f"{tower}/layer_{i}"
            for theirs, name in whisper_ct2.NORMS.items():
                if f"{layer}.{name}.weight" in tensors:
                    made[f"{ours}/{theirs}/gamma"] = tensors[f"{layer}.{name}.weight"]
                    made[f"{ours}/{theirs}/beta"] = tensors[f"{layer}.{name}.bias"]
            for theirs, names in whisper_ct2.MAPS.items():
                weights = [tensors.get(f"{layer}.{x}.weight") for x in names]
                if weights[0] is None:
                    continue
                biases = [
                    tensors.get(f"{layer}.{x}.bias", np.zeros(len(w), w.dtype))
                    for x, w in zip(names, weights)
                ]
                made[f"{ours}/{theirs}/weight"] = np.concatenate(weights)
                made[f"{ours}/{theirs}/bias"] = np.concatenate(biases)
                if quantized:
                    x = np.concatenate(weights).astype(np.float32)
                    scale = 127 / np.abs(x).max(1)
                    made[f"{ours}/{theirs}/weight"] = np.round(x * scale[:, None]).astype(np.int8)
                    made[f"{ours}/{theirs}/weight_scale"] = scale
    made["decoder/embeddings/weight"] = tensors["decoder.embed_tokens.weight"]
    return made


def write_model_bin(path, tensors, version=6, spec="WhisperSpec"):
    """The binary format of CTranslate2 6, with the alias of the tied projection."""
    kinds = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}

    def string(text):
        data = text.encode(errors="surrogateescape") + b"\0"
        return struct.pack("<H", len(data)) + data

    parts = [struct.pack("<I", version), string(spec), struct.pack("<II", 3, len(tensors))]
    for name, x in sorted(tensors.items()):
        x = np.asarray(x)
        parts += [string(name), struct.pack(f"<B{x.ndim}I", x.ndim, *x.shape)]
        parts += [struct.pack("<BI", kinds[str(x.dtype)], x.nbytes), x.tobytes()]
    alias = string("decoder/projection/weight") + string("decoder/embeddings/weight")
    path.write_bytes(b"".join([*parts, struct.pack("<I", 1), alias]))


def test_other_folders_are_refused(tmp_path):
    tensors = load_file(GOLDEN / "whisper" / "model.safetensors")
    positions = f"model.{whisper.POSITIONS}"
    for i, (folder, message) in enumerate(
        (
            (lambda p: changed_folder(p, scale_embedding=True), "scale_embedding True"),
            (lambda p: changed_folder(p, vocab_size=90), "from different models"),
            (
                lambda p: changed_folder(p, tensors | {positions: tensors[positions][::-1].copy()}),
                "differs from the sinusoids",
            ),
            (lambda p: model_bin(p, version=5), "in version 6, the only one"),
            (lambda p: model_bin(p, spec="TransformerSpec"), "a model of kind 'TransformerSpec'"),
            (lambda p: model_bin(p), "has no decoder/activation"),
            (lambda p: model_bin(p, cut=3), "is truncated at"),
            (lambda p: model_bin(p, cut=10**6), "is truncated at 0 bytes"),
            (lambda p: model_bin(p, spec="\udcff"), "is damaged"),
            (features, "has hop_length 200; only features with 160"),
        )
    ):
        (tmp_path / str(i)).mkdir()
        with pytest.raises(ValueError, match=message):
            load(folder(tmp_path / str(i)))


def model_bin(folder, cut=0, **kind):
    """A folder with a model.bin of one number."""
    path = folder / "model.bin"
    write_model_bin(
        path, {"encoder/num_heads": np.int16(3), "decoder/num_heads": np.int16(3)}, **kind
    )
    path.write_bytes(path.read_bytes()[: -cut or None])
    return folder


def features(tmp_path):
    folder = changed_folder(tmp_path)
    (folder / "preprocessor_config.json").write_text('{"hop_length": 200}')
    return folder
