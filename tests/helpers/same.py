"""Batches compared to the bit."""

import numpy as np


def assert_same(a, b):
    """The same keys, values and dtypes."""
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
        assert a[key].dtype == b[key].dtype
