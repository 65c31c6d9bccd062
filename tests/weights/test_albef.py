"""ALBEF beside the original: tests/golden/make_albef.py."""

import json
import shutil
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import GOLDEN, close, expected, layers, outputs
from safetensors.numpy import load_file, save_file

from mmjax.data.text.clean_caption import clean_caption
from mmjax.evals.grad_cam import grad_cam, middle
from mmjax.layers.sown import cross_gradients
from mmjax.models.systems import make_system
from mmjax.pretrained import load, save_pretrained
from mmjax.system import Context, average
from mmjax.variables import abstract_variables
from mmjax.weights.convert import read_params
from mmjax.weights.families import albef
from mmjax.weights.published import Published, open_folder
from mmjax.weights.tensor_file import Renamed, Safetensors

PAIR = ("image", "text", "text_mask")
ALPHA = 0.3  # make_albef.py
_WORDS = "text_encoder.cls.predictions.bias"
_SEGMENTS = "text_encoder.embeddings.token_type_embeddings.weight"


@pytest.fixture(scope="module")
def golden():
    return load(GOLDEN / "albef"), expected("albef")


def test_the_published_model_has_the_papers_parameters():
    """Section 3.5: 123.7 M of BERT with cross-attention in its last half, 85.8 M of ViT-B/16."""
    tensors = types.SimpleNamespace(name="none", shapes={_WORDS: (30522,), _SEGMENTS: (2, 768)})
    found = Published(Path("none"), {"model_type": "albef"}, {}, tensors)
    config = albef.model_config(albef.prepare(found)[0])
    system = make_system({"model": config})
    params = abstract_variables(system.model, system.spec)["params"]
    sizes = {k: sum(x.size for x in jax.tree.leaves(tree)) for k, tree in params.items()}
    assert sizes["text"] == 123_697_722
    assert sizes["image"] + sizes["image_norm"] == 85_844_736
    assert sum(sizes.values()) == 209_542_458 + 2 * (768 * 256 + 256) + (2 * 768 + 2) + 1
    covered = [name for row in albef.rows(system.model) for name in row.ours]
    assert len(covered) == len(jax.tree.leaves(params))
    # LAVIS has no table of segments.
    del tensors.shapes[_SEGMENTS]
    config = albef.model_config(albef.prepare(found)[0])
    assert config["text"]["segments"] == 0


def given(want, *names):
    return {name: want[name] for name in names}


def test_every_layer_of_the_three_encoders(golden):
    loaded, want = golden
    close(layers(loaded, given(want, "image"), "image"), want["image_layers"])
    close(layers(loaded, given(want, *PAIR[1:]), "text", "encoder"), want["text_layers"])
    close(layers(loaded, given(want, *PAIR), "text", "fusion"), want["fusion_layers"])


def test_embeddings_matches_and_masked_words(golden):
    loaded, want = golden
    found = outputs(loaded, given(want, *PAIR, "text_corrupted"))
    for name in ("image_embed", "text_embed", "match_logits", "text_prediction"):
        close(found[name], want[name])
    close(found["logit_scale"], 1 / np.float32(0.11))
    assert set(found) == {
        *("image_features", "text_features", "image_embed", "text_embed", "logit_scale"),
        *("fused_features", "match_logits", "text_prediction", "image_tokens"),
    }


def draws(found, want):
    """Uniform numbers in the middle of the intervals that give the original's negatives."""
    logits = found["logit_scale"] * found["image_embed"] @ found["text_embed"].T
    chosen = []
    for scores, name in ((logits, "negative_text"), (logits.T, "negative_image")):
        p = np.exp(scores - scores.max(1, keepdims=True))
        p = (p / p.sum(1, keepdims=True) + 1e-4) * ~np.eye(len(p), dtype=bool)
        ends = np.cumsum(p, 1) / p.sum(1, keepdims=True)
        middle = ends - p / p.sum(1, keepdims=True) / 2
        chosen.append(middle[np.arange(len(p)), want[name]])
    return np.stack(chosen, 1).astype(np.float32)


def momentum(tmp_path):
    """The momentum copies of the golden folder, as a model."""
    folder = shutil.copytree(GOLDEN / "albef", tmp_path / "teacher")
    tensors = load_file(folder / "model.safetensors")
    kept = {k: x for k, x in tensors.items() if k.startswith(("itm_head", "temp"))}
    copies = {k.replace("_m.", ".", 1): x for k, x in tensors.items() if "_m." in k}
    save_file(kept | copies, folder / "model.safetensors")
    return load(folder)


def queue(tensors):
    """The queue of the golden folder."""
    size = tensors["image_queue"].shape[1]
    return {name: tensors[f"{name}_queue"].T for name in ("image", "text")} | {
        "image_id": np.full(size, -1, np.int32),
        "text_id": np.full(size, -1, np.int32),
        "valid": np.ones(size, bool),
    }


def test_losses_and_gradients_of_a_step_of_pretraining(golden, tmp_path):
    loaded, want = golden
    teacher = momentum(tmp_path)
    system = make_system({"model": loaded.config, "loss": {"alpha": ALPHA}})
    memory = {"queue": {"keys": queue(load_file(GOLDEN / "albef/model.safetensors"))}}
    batch = given(want, *PAIR, "text_corrupted", "text_masked")
    batch["negative_draws"] = draws(outputs(loaded, given(want, *PAIR)), want)
    given_arrays = batch, memory, outputs(teacher, batch)
    batch, memory, of_teacher = jax.tree.map(jnp.asarray, given_arrays)
    context = Context(jnp.int32(0), None, of_teacher, memory)

    def loss(params):
        found = loaded.model.apply({"params": params}, batch)
        terms = {k: average(x)[0] for k, x in system.loss(found, batch, context).items()}
        total = sum(terms[k] for k in ("contrastive", "matching", "masked_text"))
        return total, (terms, found["negatives_exist"])

    (_, (terms, exist)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(loaded.params)
    assert exist.all()
    for name in ("contrastive", "matching", "masked_text"):
        close(terms[name], want[name])
    close(terms["logit_scale"], 1 / 0.11)

    # The original's gradients are one more set of tensors.
    found = open_folder(GOLDEN / "albef")
    tensors = Safetensors(GOLDEN / "albef", "gradients.safetensors", None)
    found = found._replace(tensors=Renamed(tensors, albef.canonical))
    target = abstract_variables(loaded.model, system.spec)["params"]
    theirs, _ = read_params(albef.prepare(found)[0].tensors, albef.rows(loaded.model), target)
    jax.tree.map(close, grads, theirs)
    assert all(np.abs(x).max() > 1e-6 for x in jax.tree.leaves(theirs))
    after = system.remember(memory, None, batch, context)["queue"]["keys"]
    for name in ("image", "text"):  # theirs is a ring: the newest keys replace the oldest
        close(after[name][:7], want[f"{name}_queue_after"][:7])
        close(after[name][7:], memory["queue"]["keys"][name][:7])


def test_the_fine_tuned_model_has_no_head_for_words(tmp_path):
    loaded, want = load(GOLDEN / "albef_retrieval"), expected("albef_retrieval")
    assert loaded.config["text"]["mask_token"] is None
    found = outputs(loaded, given(want, *PAIR))
    close(found["match_logits"], want["match_logits"])
    close(found["image_embed"], want["image_embed"])


@pytest.mark.parametrize("name", ["albef", "albef_retrieval"])
def test_saved_tensor_by_tensor_what_it_was(tmp_path, name):
    loaded = load(GOLDEN / name)
    save_pretrained(loaded, tmp_path / "out")
    theirs, ours = (load_file(x / "model.safetensors") for x in (GOLDEN / name, tmp_path / "out"))
    lost = theirs.keys() - ours.keys()
    tied = ("position_ids", "decoder.weight", "decoder.bias")
    assert all("_m." in k or "queue" in k or k.endswith(tied) for k in lost), lost
    for tensor, array in ours.items():
        np.testing.assert_array_equal(array, theirs[tensor].astype(np.float32))
    back = load(tmp_path / "out")
    assert back.config == loaded.config and back.transform == loaded.transform
    assert back.transform == "decode | resize((24, 24), 'bicubic')"
    texts = ["A red bus - and a/b", "(two small dogs) run!"]
    for a, b in zip(loaded.tokenizer.encode(texts, 10), back.tokenizer.encode(texts, 10)):
        np.testing.assert_array_equal(a, b)


def test_captions_are_cleaned_as_in_the_original():
    text = 'A  "red" bus-stop, with <person>\'s cat/dog: 3*4 #1 (new); ok~ .\n'
    assert clean_caption(text) == "a red bus stop with persons cat dog 34 1 new ok"
    assert load(GOLDEN / "albef").tokenizer.clean is clean_caption


def test_what_is_not_an_albef_is_refused_in_a_sentence(tmp_path):
    folder = shutil.copytree(GOLDEN / "albef", tmp_path / "model")
    settings = json.loads((folder / "config.json").read_text())
    settings["bert_config"]["encoder_width"] = 16
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="vision_width 12 and bert_config.encoder_width 16"):
        load(folder)
    settings["bert_config"] |= {"encoder_width": 12, "fusion_layer": 4}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="fusion_depth is 0 of 4 layers: leave each part"):
        load(folder)


def test_grad_cam_of_each_word_is_that_of_the_originals_notebook(golden):
    loaded, want = golden
    batch = jax.tree.map(jnp.asarray, given(want, *PAIR))

    @jax.jit
    def gradients(params):
        def score(outputs):
            return outputs["match_logits"][:, 1].sum(), None

        return cross_gradients(loaded.model.apply, {"params": params}, batch, score)

    _, weights, grads = jax.device_get(gradients(loaded.params))
    ((path, weights),), (grads,) = weights.items(), grads.values()
    assert path == "text/fusion/layers/cross/attention/attention_weights"
    assert len(weights) == 3 and middle(3) == 1 and middle(6) == 2
    maps = grad_cam(weights[middle(3)], grads[middle(3)], 24, 24)
    # The notebook leaves out padding; the layer before the last is the golden one.
    close(maps * want["text_mask"][..., None, None], want["grad_cam"])
    assert want["grad_cam"].max() > 0.01
