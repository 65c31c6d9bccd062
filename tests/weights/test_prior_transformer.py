"""Diffusion priors beside diffusers': tests/golden/make_prior_transformer.py."""

import json
import shutil

import jax
import numpy as np
import pytest
from parity import GOLDEN, close, expected, fixture, layers_and_outputs, outputs
from safetensors.numpy import load_file

from mmjax.models.prior_transformer import PriorTransformer, inputs
from mmjax.pretrained import load, save_pretrained
from mmjax.variables import abstract_variables

golden = fixture("prior", "prior_wide")
INPUTS = ("noisy_embed", "time", "text_tokens", "text_mask", "text_embed")


def test_layer_by_layer_and_at_the_end(golden):
    loaded, want = golden
    blocks, found = layers_and_outputs(loaded, {k: want[k] for k in INPUTS})
    close(blocks, want["layers"])
    close(found["clean_embed"], want["clean_embed"])
    close(found["predicted_embed"], want["scaled"])


def test_masked_tokens_change_nothing():
    loaded, want = load(GOLDEN / "prior"), expected("prior")
    batch = {k: want[k] for k in INPUTS}
    masked = ~batch["text_mask"][..., None]
    assert masked.any()
    other = batch | {"text_tokens": np.where(masked, np.float32(9), batch["text_tokens"])}
    close(outputs(loaded, other)["clean_embed"], want["clean_embed"])


def test_a_saved_folder_has_the_tensors_of_the_original(tmp_path):
    save_pretrained(load(GOLDEN / "prior"), tmp_path / "saved")
    name = "diffusion_pytorch_model.safetensors"
    theirs, ours = (load_file(folder / name) for folder in (GOLDEN / "prior", tmp_path / "saved"))
    assert theirs.keys() == ours.keys()
    for key, want in theirs.items():
        np.testing.assert_array_equal(ours[key], want, err_msg=key)
    config, saved = (
        json.loads((folder / "config.json").read_text())
        for folder in (GOLDEN / "prior", tmp_path / "saved")
    )
    assert saved.items() <= {**config, "embedding_proj_dim": None}.items()


def test_another_network_of_the_same_class_is_refused(tmp_path):
    folder = shutil.copytree(GOLDEN / "prior", tmp_path / "prior")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"norm_in_type": "layer"}))
    with pytest.raises(ValueError, match="has norm_in_type 'layer'"):
        load(folder)
    (folder / "config.json").write_text(json.dumps(config | {"clip_embed_dim": 8}))
    with pytest.raises(ValueError, match="has clip_embed_dim 8"):
        load(folder)


def test_the_paper_s_transformer_has_a_billion_parameters():
    """24 blocks of width 2048: 1,207,959,552 in their matrices, as the paper's "1B"."""
    model = PriorTransformer(1024, 1024, 77, 2048, 24, 32)
    params = abstract_variables(model, inputs(model))["params"]
    flat = jax.tree_util.tree_leaves_with_path(params["transformer"])
    kernels = [x.size for path, x in flat if jax.tree_util.keystr(path).endswith("['kernel']")]
    assert sum(kernels) == 1_207_959_552
