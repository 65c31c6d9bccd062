"""Depthwise convolutions as shifted products are the convolution of XLA."""

import jax
import numpy as np
import pytest

from mmjax.layers.depthwise import depthwise, same_padding


@pytest.mark.parametrize(
    ("size", "sides", "stride", "padding"),
    [
        ((7, 10), (3, 3), 1, "same"),
        ((7, 10), (3, 3), 2, "same"),
        ((6, 9), (5, 5), 2, "same"),
        ((1, 2), (5, 5), 2, "same"),  # smaller than the kernel
        ((9, 8), (5, 3), 3, ((2, 0), (1, 3))),
        ((6, 6), (2, 2), 2, ((0, 0), (0, 0))),
    ],
)
def test_it_is_the_grouped_convolution(size, sides, stride, padding):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    kernel = rng.normal(size=(*sides, 1, 3)).astype(np.float32)
    want = jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME" if padding == "same" else padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    )
    if padding == "same":
        padding = same_padding(size, sides, stride)
    np.testing.assert_allclose(depthwise(x, kernel, stride, padding), want, rtol=0, atol=1e-5)
