"""CCT, CVT and ViT-Lite beside their authors' code: tests/golden/make_cct.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import parameters
from flax import traverse_util
from named_draws import Drawn
from parity import close, expected

from mmjax.layers.conv_tokenizer import ConvTokenizer, max_pool
from mmjax.models.systems import make_system
from mmjax.variables import abstract_variables
from mmjax.weights.convert import read_params
from mmjax.weights.layouts import (
    Row,
    convolution,
    fused_qkv,
    grid,
    linear,
    merge_heads,
    norm,
    patches,
)

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


def rows(model):
    """The rename table."""
    ours, theirs = "transformer/layers", "classifier.blocks.{i}"
    table = [
        *norm(f"{ours}/norm_attention", f"{theirs}.pre_norm"),
        *fused_qkv(f"{ours}/attention/qkv", f"{theirs}.self_attn.qkv.weight", None, 2),
        *merge_heads(f"{ours}/attention/out", f"{theirs}.self_attn.proj", 2),
        *norm(f"{ours}/norm_mlp", f"{theirs}.norm1"),
        *linear(f"{ours}/mlp/up", f"{theirs}.linear1"),
        *linear(f"{ours}/mlp/down", f"{theirs}.linear2"),
        *norm("norm", "classifier.norm"),
        *linear("head", "classifier.fc"),
    ]
    if model.stem == "patch":
        table += patches("stem/projection", "tokenizer.conv_layers.0.0", 4)
    else:
        for i in range(ConvTokenizer(model.patch_size, 1, model.stem_kernel).layers):
            table += convolution(f"stem/conv{i}", f"tokenizer.conv_layers.{i}.0")
    name = "classifier.positional_emb"
    if model.pool == "cls":
        table.append(
            Row(
                ("class_token", "class_position", "position/table"),
                ("classifier.class_emb", name),
                lambda x, y: (x[0, 0], y[0, 0], y[0, 1:].reshape(*model.grid, -1)),
                lambda x, y, z: (
                    x[None, None],
                    np.concatenate([y[None], z.reshape(-1, len(y))])[None],
                ),
            )
        )
        return table
    if model.position == "learned":
        (row,) = grid("position/table", name, model.grid)
        first = lambda x: row.read(x[0])  # noqa: E731
        table.append(row._replace(read=first, write=lambda x: (row.write(x)[0][None],)))
    return [*table, *linear("pool/weight", "classifier.attention_pool")]


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
