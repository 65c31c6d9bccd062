import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from mmjax.layers.patch_embed import ConvStem, PatchEmbed, conv3x3, drop_patches, patchify
from mmjax.layers.platform import CPU, compiling_for

IMAGE = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)


def test_patchify_cuts_squares_in_row_order():
    patches = patchify(jnp.asarray(IMAGE), 4)
    assert patches.shape == (2, 2, 3, 48)
    for i in range(2):
        for j in range(3):
            square = IMAGE[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
            np.testing.assert_array_equal(patches[:, i, j], square.reshape(2, 48))


def test_patch_embedding_is_a_convolution():
    layer = PatchEmbed(4, 10)
    params = meta.unbox(layer.init(jax.random.key(0), IMAGE)["params"])
    kernel = params["projection"]["kernel"].reshape(4, 4, 3, 10)
    expected = jax.lax.conv_general_dilated(
        IMAGE, kernel, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(layer.apply({"params": params}, IMAGE), expected, atol=1e-4)


@pytest.mark.parametrize("width, channels", [(192, [24, 48, 96, 192]), (384, [48, 96, 192, 384])])
def test_conv_stem_has_the_papers_channels(width, channels):
    # "Early convolutions", table 1: ViT_C-1GF and ViT_C-4GF at patch 16.
    image = jnp.zeros((1, 32, 48, 3))
    params = jax.eval_shape(lambda: ConvStem(16, width).init(jax.random.key(0), image)["params"])
    shapes = {k: meta.unbox(v["kernel"]).shape for k, v in params.items() if "kernel" in v}
    for i, (before, after) in enumerate(zip([3, *channels], channels)):
        assert shapes[f"conv{i}"] == (3, 3, before, after)
    assert shapes["projection"] == (width, width)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-4), ("bfloat16", 0.1)])
def test_conv3x3_and_its_gradients_are_the_same_on_every_platform(dtype, tolerance):
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(3, 3, 3, 5)).astype(np.float32)
    weights = rng.normal(size=(2, 4, 6, 5)).astype(np.float32)

    def results():
        f = lambda x, k: (conv3x3(x, k, dtype).astype(jnp.float32) * weights).sum()  # noqa: E731
        return conv3x3(IMAGE, kernel, dtype), *jax.grad(f, argnums=(0, 1))(IMAGE, kernel)

    as_matmul = results()
    with compiling_for(dataclasses.replace(CPU, convolution_as_product=False)):
        as_convolution = results()
    for ours, xla in zip(as_matmul, as_convolution, strict=True):
        np.testing.assert_allclose(ours, xla, atol=tolerance * np.abs(xla).max())


def test_conv_stem_gives_the_same_grid_as_patches():
    layer = ConvStem(4, 16)
    y = layer.apply(layer.init(jax.random.key(0), IMAGE), IMAGE)
    assert y.shape == (2, 2, 3, 16)


@pytest.mark.parametrize("stem", [PatchEmbed(5, 8), ConvStem(8, 16), ConvStem(3, 8)])
def test_impossible_sizes_raise(stem):
    with pytest.raises(ValueError, match="multiple of patch_size|power of two"):
        stem.init(jax.random.key(0), IMAGE)


def test_drop_patches_keeps_an_ordered_random_subset_of_each_example():
    tokens = jnp.broadcast_to(jnp.arange(40.0)[None, :, None], (500, 40, 2))
    kept = np.asarray(drop_patches(tokens, 0.75, jax.random.key(0)))[:, :, 0]
    assert kept.shape == (500, 10)
    assert (np.diff(kept, axis=1) > 0).all()  # in order, so without repeats
    assert len({tuple(row) for row in kept}) > 490  # each example its own
    share = np.bincount(kept.astype(int).ravel(), minlength=40) / 500
    np.testing.assert_allclose(share, 0.25, atol=5 * np.sqrt(0.25 * 0.75 / 500))
