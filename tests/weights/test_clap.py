"""CLAP beside the original, with fusion and without: tests/golden/make_clap.py."""

import functools

import jax
import numpy as np
import pytest
from digits import wav
from flax import traverse_util
from parity import GOLDEN, close, expected, layers
from safetensors.numpy import load_file

from mmjax.data.transforms.parse import parse
from mmjax.layers.swin import SwinBlock
from mmjax.pretrained import load, save_pretrained
from mmjax.system import STATISTICS
from mmjax.weights.families import clap

NAMES = ("clap", "clap_fusion")
golden = pytest.mark.parametrize("name", NAMES)


@functools.cache
def loaded(name):
    return load(GOLDEN / name)


def batch(name):
    want = expected(name)
    keys = ("audio", "audio_longer", "text", "text_mask")
    return {k: want[k] for k in keys if k in want}


@functools.cache
def run(name):
    """Outputs, the result of every block, and of a forward pass in training."""
    model = loaded(name).model

    @jax.jit
    def every(variables, batch):
        outputs, kept = model.apply(
            variables,
            batch,
            capture_intermediates=lambda module, _: isinstance(module, SwinBlock),
            mutable=["intermediates"],
        )
        trained = model.apply(variables, batch, train=True, mutable=[STATISTICS])
        return outputs, kept["intermediates"]["audio"], trained

    return jax.tree.map(np.asarray, every(loaded(name).variables, batch(name)))


@golden
def test_the_audio_tower_block_by_block(name):
    _, blocks, _ = run(name)
    want, audio = expected(name), loaded(name).model.audio
    at = 1  # after the patches
    for stage, depth in enumerate(audio["depths"]):
        for i in range(depth):
            (found,) = blocks[f"stage{stage}_block{i}"]["__call__"]
            theirs = want[f"audio_layer_{at}"]
            close(found.reshape(theirs.shape), theirs)
            at += 1
    assert f"audio_layer_{at}" not in want


@golden
def test_embeddings_and_logits(name):
    found, want = run(name)[0], expected(name)
    for key in ("audio_features", "audio_embed", "text_embed"):
        close(found[key], want[key])
    cosines = found["audio_embed"] @ found["text_embed"].T
    close(found["logit_scale"] * cosines, want["logits_per_audio"])
    close(found["logit_scale_text"] * cosines.T, want["logits_per_text"])


def test_the_text_tower_layer_by_layer():
    given = {k: x for k, x in batch("clap").items() if k.startswith("text")}
    close(layers(loaded("clap"), given, "text"), expected("clap")["text_layers"][1:])


@golden
def test_in_training_the_norms_use_the_batch_and_keep_its_statistics(name):
    found, written = run(name)[2]
    want, model = expected(name), loaded(name).model
    close(found["audio_embed"], want["train_audio_embed"])
    flat = traverse_util.flatten_dict(dict(written), sep="/")
    theirs = {row.ours[0]: row.theirs[0] for row in clap.rows(model)}
    for path, value in flat.items():
        close(value, want[f"train/{theirs[path]}"])
    assert len(flat) == (2 if name == "clap" else 10)


def test_only_longer_clips_depend_on_their_crops():
    given = batch("clap_fusion")
    audio = given["audio"].copy()
    audio[:, 1:] = audio[:, :0:-1]
    model = loaded("clap_fusion")
    found = jax.jit(model.model.apply)(model.variables, {**given, "audio": audio})["audio_embed"]
    far = np.abs(np.asarray(found) - run("clap_fusion")[0]["audio_embed"]).max(1)
    assert far[1] < 1e-6 and far[0] > 1e-3 and far[2] > 1e-3


@golden
def test_spectrograms_are_those_of_the_feature_extractor(name):
    want = expected(name)
    sizes = (1300, 4001, 8000) if name == "clap" else (1300, 4001, 8000, 8079)
    for size in sizes:
        found = loaded(name).audio(wav(want[f"clip_{size}"]))
        mel = want[f"mel_{size}"]
        np.testing.assert_allclose(found["audio"], mel if mel.shape[0] > 1 else mel[0], atol=2e-3)
        assert not found.get("audio_longer")


def test_a_longer_clip_is_shrunk_and_cropped_as_by_the_feature_extractor():
    want = expected("clap_fusion")
    step = parse("clap_input(1, 64, 8000, 1024, 80, 50, 3900, fusion=True)")
    found = step({"audio": wav(want["clip_8200"])}, np.random.default_rng(0))
    np.testing.assert_allclose(found["audio"], want["mel_8200"], atol=2e-3)
    assert found["audio_longer"]


def test_a_random_part_of_a_long_clip():
    clip = np.random.default_rng(0).integers(-9000, 9000, 11_000)
    model = loaded("clap")
    parts = [model.audio(wav(clip), seed)["audio"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(parts[0], parts[1])
    assert parts[0].shape == (101, 8) and np.abs(parts[0] - parts[2]).max() > 0.1


@golden
def test_saved_and_loaded_again(name, tmp_path):
    save_pretrained(loaded(name), tmp_path / "out")
    theirs, ours = (load_file(x / "model.safetensors") for x in (GOLDEN / name, tmp_path / "out"))
    assert theirs.keys() == ours.keys()
    for key, value in theirs.items():
        np.testing.assert_array_equal(ours[key], value)
    again = load(tmp_path / "out")
    assert again.config == {
        **loaded(name).config,
        "logit_scale_init": pytest.approx(loaded(name).config["logit_scale_init"]),
    }
    assert again.audio_transform == loaded(name).audio_transform
    for a, b in zip(again.tokenizer.encode(["a red bus"], 9), encoded(name)):
        np.testing.assert_array_equal(a, b)


def encoded(name):
    return loaded(name).tokenizer.encode(["a red bus"], 9)


def test_texts_are_between_s_tags_and_padded_by_one():
    (text,), (mask,) = encoded("clap")
    assert text[0] == 0 and text[mask][-1] == 2
    assert not mask.all() and set(text[~mask]) == {1}
