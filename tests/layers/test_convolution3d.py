"""Convolutions of video beside XLA's own in three dimensions."""

import drawn
import jax
import numpy as np
import pytest

from mmjax.layers.convolution3d import Convolution3D, zero_padding


@pytest.mark.parametrize(
    ("kernel", "stride"), [((3, 3, 3), (1, 1, 1)), ((4, 4, 4), (2, 2, 2)), ((3, 4, 2), (1, 2, 1))]
)
def test_it_is_xla_s_convolution(kernel, stride):
    x = np.random.default_rng(0).normal(size=(2, 6, 8, 10, 3)).astype(np.float32)
    layer = Convolution3D(5, kernel, stride)
    params = drawn.parameters(layer, x)
    want = jax.lax.conv_general_dilated(
        x,
        params["kernel"],
        stride,
        [((k - 1) // 2, k // 2) for k in kernel],
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )
    found = layer.apply({"params": params}, x)
    np.testing.assert_allclose(found, want + params["bias"].reshape(1, 1, 1, 1, -1), atol=1e-5)


def test_frames_that_are_not_valid_become_zeros():
    x, mask = np.ones((2, 3, 1, 1, 2), np.float32), np.array([[True, True, False], [True] * 3])
    found = np.asarray(zero_padding(x, mask))
    np.testing.assert_array_equal(found[..., 0, 0, 0], mask)
