"""The Conformer block beside torchaudio's, and encoders that padding does not influence."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import parameters
from safetensors.numpy import load_file

from mmjax.layers.conformer import ConformerBlock, DepthwiseTime
from mmjax.layers.speech_encoder import make_encoder

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "conformer.safetensors")
LAYERS = {"wide": (4, 7), "narrow": (2, 3)}  # heads, kernel


def ours(published, heads):
    """The block's parameters from the tensors of a torchaudio layer."""

    def norm(name):
        return {"scale": published[f"{name}.weight"], "bias": published[f"{name}.bias"]}

    def linear(name):
        weight = published[f"{name}.weight"]
        return {"kernel": weight.reshape(weight.shape[:2]).T, "bias": published[f"{name}.bias"]}

    def mlp(name):
        return {"up": linear(f"{name}.sequential.1"), "down": linear(f"{name}.sequential.4")}

    width = published["input"].shape[-1]
    split = (3, heads, width // heads)
    qkv, out = published["self_attn.in_proj_weight"], linear("self_attn.out_proj")
    gate, conv = linear("conv_module.sequential.0"), "conv_module.sequential.2"
    return {
        "norm_mlp_before": norm("ffn1.sequential.0"),
        "mlp_before": mlp("ffn1"),
        "norm_attention": norm("self_attn_layer_norm"),
        "attention": {
            "qkv": {
                "kernel": qkv.T.reshape(width, *split),
                "bias": published["self_attn.in_proj_bias"].reshape(split),
            },
            "out": {"kernel": out["kernel"].reshape(*split[1:], width), "bias": out["bias"]},
        },
        "convolution": {
            "norm": norm("conv_module.layer_norm"),
            "in": {
                "kernel": gate["kernel"].reshape(width, 2, width),
                "bias": gate["bias"].reshape(2, width),
            },
            "depthwise": {
                "kernel": published[f"{conv}.weight"][:, 0].T,
                "bias": published[f"{conv}.bias"],
            },
            "norm_depthwise": norm("conv_module.sequential.3"),
            "out": linear("conv_module.sequential.5"),
        },
        "norm_mlp_after": norm("ffn2.sequential.0"),
        "mlp_after": mlp("ffn2"),
        "norm": norm("final_layer_norm"),
    }


@pytest.mark.parametrize("name", LAYERS)
def test_a_block_is_that_of_torchaudio(name):
    published = {k.removeprefix(f"{name}."): v for k, v in GOLDEN.items() if k.startswith(name)}
    heads, kernel = LAYERS[name]
    x = published["input"]
    block = ConformerBlock(heads, published["ffn1.sequential.1.weight"].shape[0], kernel)
    params = ours(published, heads)
    found, _ = jax.jit(block.apply)({"params": params}, x, np.ones(x.shape[:2], bool))
    np.testing.assert_allclose(found, published["output"], rtol=1e-5, atol=1e-5)


def test_a_depthwise_convolution_is_numpys():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 6, 3)), rng.normal(size=(5, 3))
    found = DepthwiseTime(5).apply(
        {"params": {"kernel": jnp.float32(kernel), "bias": jnp.arange(3.0)}}, jnp.float32(x)
    )
    for row in range(2):
        for c in range(3):
            want = np.convolve(x[row, :, c], kernel[::-1, c], "same") + c
            np.testing.assert_allclose(found[row, :, c], want, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="encoder.kernel is 4: use an odd number"):
        jax.eval_shape(DepthwiseTime(4).init, jax.random.key(0), jnp.float32(x))


KINDS = {
    "lstm": {"depth": 2},
    "transformer": {"depth": 1, "heads": 2, "mlp_dim": 8},
    "conformer": {"depth": 2, "heads": 2, "mlp_dim": 8, "kernel": 5},
}


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_influence_valid_frames(kind):
    encoder = make_encoder({"kind": kind, **KINDS[kind]}, "config.model.encoder")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 7, 8)).astype(np.float32)
    mask = np.arange(7)[None] < np.array([[4], [7]])
    params = parameters(encoder, x, mask)
    run = jax.jit(lambda x, mask: encoder.apply({"params": params}, x, mask))
    found = run(np.where(mask[..., None], x, 0), mask)
    other = run(np.where(mask[..., None], x, -3 * x), mask)
    alone = run(np.pad(x[:1, :4], ((0, 1), (0, 3), (0, 0))), np.stack([mask[0], mask[0]]))
    assert found.shape == x.shape and np.isfinite(found).all()
    np.testing.assert_allclose(other[mask], found[mask], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(alone[0, :4], found[0, :4], rtol=1e-5, atol=1e-5)
    first = np.zeros_like(x)
    first[0, 0, 0] = 1  # what the first frame changes reaches the last valid one
    assert np.abs(run(x * mask[..., None] + first, mask)[0, 3] - found[0, 3]).max() > 1e-4


def test_a_wrong_kind_or_setting_is_refused():
    with pytest.raises(ValueError, match="config.model.encoder.kind is 'gru'; use one of conf"):
        make_encoder({"kind": "gru"}, "config.model.encoder")
    with pytest.raises(ValueError, match="config.model.encoder.kernel is not a setting of Lstm"):
        make_encoder({"kind": "lstm", "kernel": 3}, "config.model.encoder")
