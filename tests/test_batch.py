"""The batch contract against a model's spec."""

import jax
import numpy as np
import pytest

from mmjax import batch as batches

SPEC = {
    "image": jax.ShapeDtypeStruct((1, 8, 8, 3), np.uint8),
    "text": jax.ShapeDtypeStruct((1, 5), np.int32),
}


def good(size=4):
    return {
        "image": np.zeros((size, 8, 8, 3), np.uint8),
        "text": np.zeros((size, 5), np.int32),
        "label": np.zeros(size, np.int32),
    }


@pytest.mark.parametrize("size", [1, 4])
def test_any_batch_size_and_further_arrays_pass(size):
    batches.check(good(size), SPEC)
    batches.check(jax.tree.map(jax.numpy.asarray, good(size)), SPEC)


def test_missing_array_is_named_with_what_there_is():
    batch = good()
    del batch["text"]
    with pytest.raises(ValueError, match=r"no 'text'.*\['image', 'label'\].*config.data.transform"):
        batches.check(batch, SPEC)


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("text", np.zeros((4, 6), np.int32), r"'text' is int32\[6\] .* int32\[5\]"),
        ("text", np.zeros((4, 5), np.float32), r"'text' is float32\[5\] .* int32\[5\]"),
        ("image", np.zeros((4, 8, 9, 3), np.uint8), r"uint8\[8, 9, 3\] .* uint8\[8, 8, 3\]"),
        ("image", np.zeros((4, 8, 8), np.uint8), r"uint8\[8, 8\] "),
    ],
)
def test_another_shape_or_dtype_names_both(name, array, said):
    with pytest.raises(ValueError, match=said):
        batches.check(good() | {name: array}, SPEC)


def test_to_device_dtypes_keeps_ids_and_everything_else():
    batch = good() | {"example_id": np.asarray([0, 7, -1, 2**31 - 1], np.int64)}
    moved = batches.to_device_dtypes(batch)
    assert moved["example_id"].dtype == np.int32
    np.testing.assert_array_equal(moved["example_id"], batch["example_id"])
    assert all(moved[k] is batch[k] for k in good())
