"""A Flamingo's and a captioner's language model from published folders; the rest of `init_from` is
in test_checkpoint.py, a GGUF file in weights/test_llama.py."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file
from train_states import OTHER, SHAPES, assert_identical, run_of, save, state

from mmjax import config as configs
from mmjax.models.systems import make_system
from mmjax.pretrained import describe, load
from mmjax.run import initial
from mmjax.system import CODEBOOK, STATISTICS
from mmjax.variables import abstract_variables, initial_params
from mmjax.workdir.checkpoint import CheckpointError, Checkpoints, TreeMismatchError

GOLDEN = Path(__file__).parents[1] / "golden"
IMAGE = {"width": 8, "depth": 1, "heads": 2, "mlp_dim": 8, "patch_size": 8, "image_size": (16, 16)}


def captioner(length):
    """Parameters, all 0, of a captioner with the language model of tests/golden/gpt2."""
    text = {**describe(GOLDEN / "gpt2").config["text"], "length": length}
    whole = {"model": {"name": "captioner", "image": IMAGE, "text": text}, "loss": {}}
    system = make_system(whole)
    abstract = abstract_variables(system.model, system.spec)["params"]
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_new_flamingo_writes_as_the_published_model_that_it_starts_from(name):
    """Its gated layers are closed at first, so its logits are those of the original code."""
    text = describe(GOLDEN / name).config["text"]
    text["decoder"]["cross_every"] = text["decoder"]["depth"]
    config = {"name": "flamingo", "image": IMAGE, "text": text}
    config |= {"resampler": {"latents": 2, "depth": 1, "heads": 2}}
    config |= {"image_token": 5, "max_images": 1}
    whole = {"model": config, "loss": {}}
    system = make_system(whole)
    model, params = system.model, initial_params(system.model, system.spec, seed=3)
    taken, report = initial.language_model_from(GOLDEN / name, params)
    want = load_file(GOLDEN / name / "expected.safetensors")
    seen, batch = want["text_mask"], {k: want[k] for k in ("text", "text_mask")}
    logits = jax.jit(lambda p: model.apply({"params": p}, batch)["text_logits"])(taken)
    np.testing.assert_allclose(np.asarray(logits)[seen], want["text_logits"][seen], atol=2e-5)
    assert "taken   text/embed/embedding" in report and "unused" not in report
    for kept in ("resampler", "image"):
        jax.tree.map(np.testing.assert_array_equal, taken[kept], params[kept])
        assert f"kept    {kept}/" in report
    assert any(line.startswith("  kept    text/decoder/stack/cross") for line in report.split("\n"))


def test_a_captioner_takes_the_first_of_the_learned_positions():
    taken, _ = initial.language_model_from(GOLDEN / "gpt2", captioner(length=10))
    theirs = traverse_util.flatten_dict(load(GOLDEN / "gpt2").params, sep="/")
    found = traverse_util.flatten_dict(taken, sep="/")
    assert found[initial.POSITIONS[0]].shape == (10, 16)
    for name, array in theirs.items():
        array = array[:10] if name in initial.POSITIONS else array
        np.testing.assert_array_equal(found[name], array)


def test_the_text_tower_of_a_clip_takes_a_sentence_encoder_with_fewer_positions():
    theirs = load(GOLDEN / "minilm")
    text = {**theirs.config["text"], "kind": "bert", "length": 5}
    config = {"name": "clip", "embed_dim": 8, "image": IMAGE, "text": text}
    system = make_system({"model": config, "loss": {}})
    params = abstract_variables(system.model, system.spec)["params"]
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), params)
    taken, _ = initial.language_model_from(GOLDEN / "minilm", params)
    want = {**theirs.params["text"]}
    want["position"] = {"table": want["position"]["table"][:5]}
    jax.tree.map(np.testing.assert_array_equal, taken["text"], want)


def test_what_is_no_such_language_model_is_refused_by_name(tmp_path):
    params = captioner(length=24)
    with pytest.raises(ValueError, match="missing: text/decoder/norm/bias.*extra: .*embed/head"):
        initial.language_model_from(GOLDEN / "llama", params)
    with pytest.raises(ValueError, match="extra: image/"):
        initial.language_model_from(GOLDEN / "clip", params)
    with pytest.raises(ValueError, match="config.init_from.language_model: there is no 'x/y'"):
        initial.language_model_from("x/y", params)
    with pytest.raises(ValueError, match="no checkpoints in"):
        initial.language_model_from(tmp_path, params)
    with pytest.raises(ValueError, match=r"position/table \[24, 16\] .the model has \[30, 16\]"):
        initial.language_model_from(GOLDEN / "gpt2", captioner(length=30))


def test_init_from_takes_the_average_of_what_matches(tmp_path):
    save(tmp_path, 4, 7)
    source = state(7).average
    ours = state(20).params
    got, report = initial.parameters_from(tmp_path, ours, ("image/.*", "logit_scale"))
    assert_identical(got["image"], source["image"])
    assert_identical(got["logit_scale"], source["logit_scale"])
    assert_identical(got["text"], ours["text"])
    assert "step 7" in report.splitlines()[0]
    lines = {line.split()[1]: line.split()[0] for line in report.splitlines()[1:]}
    assert lines.pop("text/embedding") in ("kept", "unused")
    assert lines == dict.fromkeys(("image/mlp/kernel", "image/mlp/bias", "logit_scale"), "taken")
    assert "kept    text/embedding [16, 8]" in report
    assert "unused  text/embedding" in report


def test_init_from_takes_all_by_default_and_from_a_run_without_average(tmp_path):
    save(tmp_path, 4, ema=False)
    got, report = initial.parameters_from(tmp_path, state(20).params)
    assert_identical(got, state(4, ema=False).params)
    assert "kept" not in report
    assert "unused" not in report


def test_the_statistics_of_batch_norms_come_with_the_parameters(tmp_path):
    """From a run, where they are memory, and from a published folder."""
    source, ours = state(4), state(20)
    numbers = {"norm": {"mean": source.params["image"]["mlp"]["bias"]}}
    saves = Checkpoints(tmp_path)
    saves.save(4, source.replace(memory={STATISTICS: numbers}), run_of(4))
    saves.close()
    mine = {**ours.params, STATISTICS: {"norm": {"mean": ours.params["image"]["mlp"]["bias"]}}}
    got, report = initial.parameters_from(tmp_path, mine)
    assert_identical(got[STATISTICS], numbers)
    assert f"taken   {STATISTICS}/norm/mean [4]" in report and "unused" not in report

    loaded = load(GOLDEN / "clap")
    whole = {**loaded.params, **loaded.memory}
    zeros = jax.tree.map(jnp.zeros_like, whole)
    got, _ = initial.parameters_from(GOLDEN / "clap", zeros, (f"({STATISTICS}/)?audio/.*",))
    assert_identical(got[STATISTICS], loaded.memory[STATISTICS])
    assert_identical(got["audio"], loaded.params["audio"])
    assert_identical(got["text"], zeros["text"])


def test_init_from_of_a_part_that_fits_in_a_model_that_does_not(tmp_path):
    save(tmp_path, 4)
    mine = {"image": SHAPES["image"], "head": {"kernel": (8, 8)}}
    ours = state(20, shapes=mine).params
    got, report = initial.parameters_from(tmp_path, ours, ("image/.*",))
    assert_identical(got["image"], state(4).average["image"])
    assert_identical(got["head"], ours["head"])
    for line in ("kept    head/kernel [8, 8]", "unused  text/embedding", "unused  logit_scale"):
        assert line in report
    with pytest.raises(TreeMismatchError, match="missing: .*head/kernel"):
        initial.parameters_from(tmp_path, ours)


def test_init_from_refuses_what_does_not_match(tmp_path):
    save(tmp_path, 4)
    ours = state(20).params
    with pytest.raises(ValueError, match=r"'imag/.\*', which matches no parameter.*image/mlp"):
        initial.parameters_from(tmp_path, ours, ("image/.*", "imag/.*"))
    with pytest.raises(CheckpointError, match="there is no '"):
        initial.parameters_from(tmp_path / "none", ours)
    assert not (tmp_path / "none").exists()
    other = state(20, shapes=OTHER).params
    with pytest.raises(TreeMismatchError, match=r"image/mlp/kernel \[8, 4\] .* \[8, 12\]"):
        initial.parameters_from(tmp_path, other, ("image/.*",))
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    with pytest.raises(CheckpointError, match="no checkpoints in"):
        initial.parameters_from(tmp_path, ours)


def test_an_image_tokenizer_becomes_a_part_of_another_model(tmp_path):
    """From a run, with its codebook, and from a published folder."""
    source, mine, book = state(4), state(20), state(5).params["image"]
    config = configs.defaults()
    config.model = {"name": "image_tokenizer"}
    saves = Checkpoints(tmp_path)
    run = {**run_of(4), "config": configs.to_json(config)}
    saves.save(4, source.replace(memory={CODEBOOK: {"quantizer": book}}), run)
    saves.close()
    ours = {"image_tokenizer": mine.params, "decoder": mine.params["image"]}
    ours[CODEBOOK] = {"image_tokenizer": {"quantizer": mine.params["image"]}}
    only = (f"({CODEBOOK}/)?image_tokenizer/.*",)
    got, report = initial.parameters_from(tmp_path, ours, only)
    assert_identical(got["image_tokenizer"], source.average)
    assert_identical(got[CODEBOOK], {"image_tokenizer": {"quantizer": book}})
    assert_identical(got["decoder"], ours["decoder"])
    assert "taken   image_tokenizer/text/embedding" in report and "unused" not in report

    loaded = load(GOLDEN / "dall_e")
    zeros = {"image_tokenizer": jax.tree.map(jnp.zeros_like, loaded.params)}
    got, report = initial.parameters_from(GOLDEN / "dall_e", zeros, only)
    assert_identical(got["image_tokenizer"], loaded.params)
    assert "unused" not in report
