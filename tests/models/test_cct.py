"""CCT, CVT and ViT-Lite beside their authors' code: tests/golden/make_cct.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import parameters
from flax import traverse_util
from named_draws import Drawn
from parity import GOLDEN, close, expected, outputs

from mmjax.layers.conv_tokenizer import max_pool
from mmjax.models.systems import make_system
from mmjax.pretrained import load
from mmjax.variables import abstract_variables
from mmjax.weights.convert import read_params
from mmjax.weights.families import compact_transformers
from mmjax.weights.families.compact_transformers import IMAGENET, rows

BASE = {"name": "vit", "qkv_bias": False, "block_norm": "between", "norm_epsilon": 1e-5}
SMALL = {**BASE, "width": 16, "depth": 2, "heads": 2, "mlp_dim": 24, "num_classes": 5}
POOLED = {"stem": "conv_pool", "pool": "sequence"}
MODELS = {
    "cct_3x2": {"image_size": 20, "patch_size": 4, **POOLED},
    "cct_3x1_sine": {"image_size": 12, "patch_size": 2, "position": "sincos1d", **POOLED},
    "cct_7x1": {"image_size": 24, "patch_size": 4, "stem_kernel": 7, **POOLED},
    "cvt": {"image_size": 12, "patch_size": 4, "pool": "sequence"},
    "vit_lite": {"image_size": 12, "patch_size": 4},
}


@pytest.mark.parametrize("name", MODELS)
def test_tokens_blocks_and_logits_are_those_of_the_authors_code(name):
    want = {
        key.removeprefix(f"{name}/"): x
        for key, x in expected("cct").items()
        if key.startswith(f"{name}/")
    }
    system = make_system({"model": {**SMALL, **MODELS[name]}, "loss": {}})
    target = abstract_variables(system.model, system.spec)["params"]
    table = rows(system.model)
    drawn = Drawn(table, traverse_util.flatten_dict(target, sep="/"))
    params, _ = read_params(drawn, table, target)

    def run(params, image):
        return system.model.apply(
            {"params": params},
            {"image": image},
            capture_intermediates=lambda module, method: (
                method == "__call__" and module.name in ("stem", "layers")
            ),
            mutable=["intermediates"],
        )

    outputs, kept = jax.jit(run)(params, want["image"])
    kept = kept["intermediates"]
    (tokens,) = kept["stem"]["__call__"]
    close(tokens.reshape(*want["tokens"].shape), want["tokens"])
    ((blocks, _),) = kept["transformer"]["layers"]["__call__"]
    for i in range(2):
        close(blocks[i], want[f"block{i}"])
    close(outputs["logits"], want["logits"])


@pytest.mark.parametrize("name", ("cct", "vit_lite"))
def test_a_file_of_torch_gives_the_model_and_its_logits(name):
    loaded, want = load(GOLDEN / "cct" / f"{name}.pth"), expected("cct")
    found = outputs(loaded, {"image": want[f"{name}.pth/image"]})
    close(found["logits"], want[f"{name}.pth/logits"])
    config = loaded.config
    assert (config["width"], config["heads"], config["mlp_dim"]) == (64, 1, 32)
    assert config["image_mean"] == IMAGENET[0]  # it is no model of CIFAR
    assert loaded.transform == "decode | resize(12, 'bicubic')"


def names_of(depth, width, mlp, kernel, layers, side, classes):
    """The shapes of a published CCT, by the authors' code."""
    channels = [3, *[64] * (layers - 1), width]
    found = {
        f"tokenizer.conv_layers.{i}.0.weight": (channels[i + 1], channels[i], kernel, kernel)
        for i in range(layers)
    }
    found |= {"classifier.positional_emb": (1, side**2, width)}
    found |= {f"classifier.blocks.{i}.linear1.weight": (mlp, width) for i in range(depth)}
    found |= {"classifier.attention_pool.weight": (1, width)}
    return found | {"classifier.fc.weight": (classes, width)}


@pytest.mark.parametrize(
    ("sizes", "patch", "image", "heads"),
    [
        ((2, 128, 128, 3, 2, 8, 10), 4, 32, 2),
        ((7, 256, 512, 3, 1, 16, 100), 2, 32, 4),
        ((14, 384, 1152, 7, 2, 14, 1000), 16, 224, 6),
        ((14, 384, 1152, 7, 2, 24, 1000), 16, 384, 6),
    ],
)
def test_settings_of_published_files_are_those_of_their_sizes(
    monkeypatch, sizes, patch, image, heads
):
    class File:
        def __init__(self, path):
            self.shapes = names_of(*sizes)

    monkeypatch.setattr(compact_transformers, "TorchFile", File)
    found = compact_transformers.open_file("some.pth")
    config = compact_transformers.model_config(found)
    assert (config["patch_size"], config["image_size"], config["heads"]) == (patch, image, heads)
    assert (config["depth"], config["pool"], config["stem"]) == (sizes[0], "sequence", "conv_pool")
    mean = {10: 0.4914, 100: 0.5071, 1000: 0.485}[sizes[-1]]
    assert config["image_mean"][0] == mean
    cropped = {
        32: "decode | resize(32, 'bicubic')",
        224: "resize_short(248",
        384: "resize_short(426",
    }
    assert cropped[image] in compact_transformers.transform(found)
    make_system({"model": config, "loss": {}})  # a model of ours


def test_parameter_counts_are_the_published_ones():
    wide, narrow = {"width": 256, "heads": 4, "mlp_dim": 512}, {"width": 128, "mlp_dim": 128}

    def count(depth, patch, sizes, **fields):
        sizes = {"heads": 2, **sizes, "image_size": 32, "num_classes": 10}
        model = {**BASE, **sizes, "depth": depth, "patch_size": patch, **fields}
        system = make_system({"model": model, "loss": {}})
        params = abstract_variables(system.model, system.spec)["params"]
        return sum(x.size for x in jax.tree.leaves(params))

    assert count(6, 4, wide) == 3_190_538
    assert count(7, 4, wide, pool="sequence") == 3_716_619
    assert count(2, 4, narrow, **POOLED) == 283_723
    assert count(7, 2, wide, **POOLED) == 3_760_139


def test_max_pooling_is_xlas_and_its_gradient():
    x = jax.nn.relu(jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 9, 3)), jnp.float32))

    def theirs(x):
        pad = ((0, 0), (1, 1), (1, 1), (0, 0))
        window = ((1, 3, 3, 1), (1, 2, 2, 1), pad)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *window)

    def both(f):
        return f(x), jax.grad(lambda y: (f(jax.nn.relu(y)) ** 2).sum())(x - 0.1)

    for got, want in zip(both(max_pool), both(theirs)):
        np.testing.assert_array_equal(got, want)


def test_dropout_of_attention_weights_is_unbiased_and_only_in_training():
    fields = {**MODELS["cct_3x2"], "depth": 1, "image_size": 8}
    on = make_system({"model": {**SMALL, **fields, "attention_dropout": 0.3}, "loss": {}}).model
    off = make_system({"model": {**SMALL, **fields}, "loss": {}}).model
    batch = {"image": np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)}
    params = parameters(on, batch)

    @jax.jit
    def run(key):
        given = {"rngs": {"dropout": key}, "train": True, "mutable": ["intermediates"]}
        return on.apply({"params": params}, batch, **given)

    many, kept = jax.vmap(run)(jax.random.split(jax.random.key(0), 300))
    still = [
        jax.jit(lambda m=m: m.apply({"params": params}, batch, mutable=["intermediates"]))()
        for m in (on, off)
    ]
    (weights,), (plain,) = jax.tree.leaves(kept), jax.tree.leaves(still[1][1])
    # A dropped weight is 0 and the others grow, so that the mean is that without dropout.
    assert abs((np.asarray(weights) == 0).mean() - 0.3) < 0.02
    np.testing.assert_allclose(np.mean(weights, 0), plain, rtol=0.2)
    np.testing.assert_array_equal(still[0][0]["logits"], still[1][0]["logits"])
    assert np.std(many["logits"], axis=0).min() > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stem_kernel": 4}, "'conv_pool' stem with a kernel of 4"),
        ({"patch_size": 3, "image_size": 12}, "makes tokens of 2, 4, ... pixels a side, not 3"),
        ({"image_size": 10}, "Image size 10x10 is not a multiple of patch_size 4"),
        ({"block_norm": "post"}, "block_norm of a ViT is 'post'; use 'pre' or 'between'"),
    ],
)
def test_wrong_settings_are_one_sentence(fields, message):
    model = {**SMALL, **MODELS["cct_3x2"], **fields}
    with pytest.raises(ValueError, match=message):
        system = make_system({"model": model, "loss": {}})
        abstract_variables(system.model, system.spec)
