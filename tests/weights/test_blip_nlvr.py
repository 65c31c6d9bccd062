"""BLIP's model of two images beside the original: tests/golden/make_blip_nlvr.py."""

import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import GOLDEN, close, expected, layers, outputs
from safetensors.numpy import load_file

from mmjax.models.systems import make_system
from mmjax.pretrained import load, save_pretrained
from mmjax.system import average
from mmjax.variables import abstract_variables
from mmjax.weights.convert import read_params
from mmjax.weights.families import blip_nlvr
from mmjax.weights.published import Published, open_folder
from mmjax.weights.tensor_file import Safetensors

GIVEN = ("image", "text", "text_mask")


@pytest.fixture(scope="module")
def golden():
    return load(GOLDEN / "blip_nlvr"), expected("blip_nlvr")


def given(want, *names):
    return {name: want[name] for name in names}


def test_every_layer_and_the_logits(golden):
    loaded, want = golden
    assert loaded.config["text"]["merge_depth"] == 2 and loaded.config["encode_token"] == 95
    batch = given(want, *GIVEN)
    close(layers(loaded, batch, "text_encoder", "averaging"), want["text_layers"][:6])
    close(layers(loaded, batch, "text_encoder", "merging"), want["text_layers"][6:])
    found = outputs(loaded, batch)
    close(found["logits"], want["logits"])
    close(found["fused_features"], want["text_layers"][-1, :, 0])
    # An image that is marked as missing has no effect, and no row another's.
    shown = np.array([[True, True], [True, False], [False, True], [True, True], [True, True]])
    other = dict(batch, image=np.where(shown[..., None, None, None], batch["image"], 7))
    masked = [outputs(loaded, x | {"image_mask": shown})["logits"] for x in (batch, other)]
    np.testing.assert_array_equal(*masked)
    close(masked[0][[0, 3, 4]], want["logits"][[0, 3, 4]])
    assert np.abs(masked[0] - want["logits"])[1:3].max() > 1e-3


def test_loss_and_gradients(golden):
    loaded, want = golden
    system = make_system({"model": loaded.config})
    batch = jax.tree.map(jnp.asarray, given(want, *GIVEN, "label"))

    def loss(params):
        found = loaded.model.apply({"params": params}, batch)
        return average(system.loss(found, batch, None)["classification"])[0]

    value, grads = jax.jit(jax.value_and_grad(loss))(loaded.params)
    close(value, want["loss"])
    found = open_folder(GOLDEN / "blip_nlvr")
    tensors = blip_nlvr.prepare(
        found._replace(tensors=Safetensors(GOLDEN / "blip_nlvr", "gradients.safetensors", None))
    )[0].tensors
    target = abstract_variables(loaded.model, system.spec)["params"]
    theirs, _ = read_params(tensors, blip_nlvr.rows(loaded.model), target)
    jax.tree.map(close, grads, theirs)
    assert all(np.abs(x).max() > 1e-6 for x in jax.tree.leaves(theirs))


def test_saved_tensor_by_tensor_what_it_was(golden, tmp_path):
    loaded, _ = golden
    save_pretrained(loaded, tmp_path / "out")
    theirs, ours = (
        load_file(x / "model.safetensors") for x in (GOLDEN / "blip_nlvr", tmp_path / "out")
    )
    assert theirs.keys() - ours.keys() == {"text_encoder.embeddings.position_ids"}
    for tensor, array in ours.items():
        np.testing.assert_array_equal(array, theirs[tensor])
    back = load(tmp_path / "out")
    assert back.config == loaded.config and back.transform == loaded.transform


def test_the_published_model_has_the_originals_parameters():
    """Counted by the original's modules: ViT-B/16 of 384 pixels, BERT with two cross-attentions."""
    merges = {
        f"text_encoder.encoder.layer.{i}.crossattention.output.merge_layer.weight": (768, 1536)
        for i in range(6, 12)
    }
    tensors = types.SimpleNamespace(name="none", shapes=merges)
    found = Published(Path("none"), {"model_type": "blip_nlvr"}, {}, tensors)
    system = make_system({"model": blip_nlvr.model_config(blip_nlvr.prepare(found)[0])})
    params = abstract_variables(system.model, system.spec)["params"]
    linear, norm = 768 * 768 + 768, 2 * 768
    mlp = 2 * 768 * 3072 + 3072 + 768
    image = linear + (2 + 576) * 768 + 12 * (4 * linear + mlp + 2 * norm) + norm
    text = (30_524 + 512) * 768 + norm + 12 * (4 * linear + mlp + 2 * norm)
    cross = 12 * (8 * linear + norm) + 6 * (1536 * 768 + 768)
    head = linear + 2 * 768 + 2
    assert sum(x.size for x in jax.tree.leaves(params)) == image + text + cross + head
    covered = [name for row in blip_nlvr.rows(system.model) for name in row.ours]
    assert len(covered) == len(jax.tree.leaves(params))


def test_what_does_not_fit_is_refused(golden):
    loaded, want = golden
    with pytest.raises(ValueError, match="reads a text and two images, .B, 2, H, W, 3.; use"):
        outputs(loaded, {**given(want, *GIVEN), "image": want["image"][:, 0]})
    config = {**loaded.config, "encode_token": 96}
    with pytest.raises(ValueError, match="encode_token is 96 and the vocabulary 96"):
        make_system({"model": config})
    text = {**loaded.config["text"], "merge_depth": 9}
    with pytest.raises(ValueError, match="merge_depth is 9 of 8 layers"):
        make_system({"model": {**loaded.config, "text": text}})
    system = make_system({"model": loaded.config})
    with pytest.raises(ValueError, match="label 2 and the head 2 classes"):
        system.check_batch({"label": np.array([0, 2])})
