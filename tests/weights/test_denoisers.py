"""U-Nets and DiT beside diffusers: tests/golden/make_unet.py and make_dit.py."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax.core import meta
from parity import GOLDEN, close, expected
from unet_parts import close_parts, run

from mmjax.models.systems import make_system
from mmjax.models.unet import UNet
from mmjax.pretrained import load, save_pretrained
from mmjax.variables import abstract_variables
from mmjax.weights import unet_table
from mmjax.weights.convert import read_params
from mmjax.weights.published import DIFFUSERS
from mmjax.weights.tensor_file import Safetensors

LOADED = ("unet_adm", "unet_ddpm", "dit")


@pytest.mark.parametrize("name", ["unet_adm", "unet_ddpm"])
def test_unet_part_by_part(name):
    loaded, want = load(GOLDEN / name), expected(name)
    assert "1,000 linear steps and epsilon are assumed" in loaded.report
    batch = {"noised": want["x"], "time": want["time"].astype(np.float32)}
    batch |= {"label": want["label"].astype(np.int32)} if "label" in want else {}
    found, kept = run(loaded.model, loaded.variables, batch)
    kept = {k.removeprefix("backbone/"): x for k, x in kept.items()}
    close_parts(kept, want, 3, loaded.config["backbone"]["blocks"])
    close(found["prediction"], want["output"][..., :3])
    assert ("variance" in found) == (name == "unet_adm")
    if "variance" in found:
        close(found["variance"], want["output"][..., 3:])


def test_unet_with_a_context_and_an_embedding():
    """Karlo's decoder; a masked token of the context has no influence."""
    folder, want = GOLDEN / "unet_karlo", expected("unet_karlo")
    config = json.loads((folder / "config.json").read_text())
    model = UNet(**unet_table.fields(config, "karlo"), out_channels=6)
    given = want["x"], want["time"].astype(np.float32)
    named = {k: want[k] for k in ("embedding", "context", "context_mask")}
    boxed = jax.eval_shape(lambda: model.init(jax.random.key(0), *given, **named)["params"])
    tensors = Safetensors(folder, DIFFUSERS.tensors, None)
    params, _ = read_params(tensors, unet_table.rows(model, context=True), meta.unbox(boxed))
    found, kept = run(model, {"params": params}, *given, **named)
    close_parts(kept, want, 3, 1)
    close(found, want["output"])
    written = unet_table.config_of(model, unet_table.CONDITIONED)
    assert unet_table.fields(config | written, "karlo") == unet_table.fields(config, "karlo")
    named["context"] = np.where(named["context_mask"][..., None], named["context"], 9e3)
    again, _ = run(model, {"params": params}, *given, **named)
    np.testing.assert_array_equal(again, found)


def test_dit_layer_by_layer():
    loaded, want = load(GOLDEN / "dit"), expected("dit")
    assert loaded.config["schedule"] == {"name": "squared_cosine", "steps": 1000}
    assert loaded.config["target"] == "v"
    label = np.where(want["label"] == 5, -1, want["label"]).astype(np.int32)  # the row for none
    batch = {"noised": want["x"], "time": want["time"].astype(np.float32), "label": label}
    found, kept = run(loaded.model, loaded.variables, batch)
    close(np.asarray(kept["backbone/layers"]), want["layers"])
    close(found["prediction"], want["output"][..., :4])
    close(found["variance"], want["output"][..., 4:])


@pytest.mark.parametrize("name", LOADED)
def test_a_saved_folder_comes_back(name, tmp_path):
    loaded = load(GOLDEN / name)
    save_pretrained(loaded, tmp_path / name)
    theirs, ours = (
        Safetensors(root / name, DIFFUSERS.tensors, None) for root in (GOLDEN, tmp_path)
    )
    assert theirs.shapes == ours.shapes
    for tensor in theirs.shapes:
        wide = theirs.read(tensor).astype(np.float32)
        np.testing.assert_array_equal(ours.read(tensor), wide)
    assert load(tmp_path / name).config == loaded.config
    before, after = (
        json.loads((root / name / "config.json").read_text()) for root in (GOLDEN, tmp_path)
    )
    changed = {k for k in after if k in before and before[k] != after[k]}
    # Settings of no influence: all levels attend by one way, and the version is not ours.
    assert changed <= {
        "attn_norm_num_groups",
        "downsample_padding",
        "down_block_types",
        "up_block_types",
    }


@pytest.mark.parametrize(
    ("origin", "changed", "words"),
    [
        ("unet_adm", {"act_fn": "gelu"}, "act_fn 'gelu'"),
        ("unet_adm", {"attn_norm_num_groups": None}, "attn_norm_num_groups None"),
        ("unet_adm", {"down_block_types": ["KDownBlock2D"] * 3}, "KDownBlock2D"),
        ("unet_adm", {"downsample_type": "conv"}, "kinds of resizing"),
        ("unet_adm", {"class_embed_type": "timestep"}, "class_embed_type 'timestep'"),
        ("unet_ddpm", {"out_channels": 5}, "3 channels in and 5 out"),
        ("dit", {"norm_type": "layer_norm"}, "norm_type 'layer_norm'"),
    ],
)
def test_settings_of_others_are_named(origin, changed, words, tmp_path):
    folder = shutil.copytree(GOLDEN / origin, tmp_path / origin)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(ValueError, match=words):
        load(folder)


@pytest.mark.parametrize(
    ("backbone", "rest", "count"),
    [
        # Peebles and Xie 2022; with the row for no class, without the fixed table of positions.
        ({"kind": "dit", "variant": "S/2"}, {}, 32_865_056),
        ({"kind": "dit", "variant": "B/2"}, {}, 130_315_808),
        ({"kind": "dit", "variant": "L/2"}, {}, 457_840_672),
        ({"kind": "dit", "variant": "XL/2"}, {}, 674_834_720),
        # Dhariwal and Nichol 2021, table 4: 296M.
        (
            {"kind": "unet"},
            {"latents": None, "image_size": 64, "condition_dropout": 0.0},
            295_904_454,
        ),
    ],
)
def test_published_sizes(backbone, rest, count):
    model = {"name": "diffusion", "latents": (32, 32, 4), "num_classes": 1000}
    model |= {"backbone": backbone, "condition_dropout": 0.1, "learned_variance": True, **rest}
    system = make_system({"model": model})
    params = abstract_variables(system.model, system.spec)["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == count
