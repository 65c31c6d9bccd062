"""Checksums: against a slow reference, on every mesh, and after any one flipped bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax import sharding
from mmjax.workdir.checksum import checksums


def reference(x):
    """Element by element, in Python's integers."""
    total, kept = 0, 0xFFFFFFFF
    size = min(x.dtype.itemsize, 4)
    data = x.tobytes()
    for place in range(len(data) // size):
        mix = int.from_bytes(data[place * size : (place + 1) * size], "little")
        mix ^= place * 0x9E3779B1 & kept
        mix = (mix ^ mix >> 16) * 0x85EBCA6B & kept
        mix = (mix ^ mix >> 13) * 0xC2B2AE35 & kept
        total += mix ^ mix >> 16
    return total & kept


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool", "float16"])
@pytest.mark.parametrize("shape", [(), (3,), (4, 5, 2)])
def test_checksums_are_the_reference_s(dtype, shape):
    values = np.random.default_rng(0).normal(size=shape) * 50
    x = jnp.asarray(np.abs(values), dtype) if dtype == "uint8" else jnp.asarray(values, dtype)
    found = checksums({"a": {"b": x}})
    assert {k: int(v) for k, v in found.items()} == {"a/b": reference(np.asarray(x))}


@pytest.mark.parametrize("mesh", toy.MESHES.values(), ids=toy.MESHES)
def test_checksums_are_the_same_on_any_mesh(mesh):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 8)), jnp.float32)
    names = (("batch", None), ("embed", "mlp"), ("vocab", "embed"))
    for axes in names:
        split = jax.device_put(x, sharding.named(sharding.make_mesh(mesh), *axes))
        assert int(checksums([split])["0"]) == int(checksums([x])["0"])


@settings(max_examples=60)
@given(place=st.integers(0, 63), bit=st.integers(0, 31), other=st.integers(0, 63))
def test_a_flipped_bit_or_a_swap_changes_it(place, bit, other):
    x = np.random.default_rng(1).integers(0, 2**32, 64, np.uint32)
    before = int(checksums([jnp.asarray(x)])["0"])
    flipped, swapped = x.copy(), x.copy()
    flipped[place] ^= np.uint32(1 << bit)
    swapped[[place, other]] = swapped[[other, place]]
    assert int(checksums([jnp.asarray(flipped)])["0"]) != before
    assert (int(checksums([jnp.asarray(swapped)])["0"]) == before) == (place == other)
