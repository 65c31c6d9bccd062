"""Checksums of arrays, computed on their devices: equal on any mesh and number of processes.

A checkpoint stores one for each array of the state, the batch log one for each array of a batch.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


@jax.jit
def checksums(tree: Any) -> dict[str, jax.Array]:
    """path -> checksum, a uint32 scalar, of every array of a tree.

    The sum, modulo 2^32, of a hash of each element's bits and its index; a sum does not depend on
    how the array is sharded. One changed element always changes it; other damage goes unnoticed
    with probability 2^-32.
    Source: the hash is the finalizer of MurmurHash3 (Appleby 2011), which is a bijection.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): _checksum(leaf)
        for path, leaf in leaves
    }


def digest(tree: Any, among: Callable[[str], bool] = lambda path: True) -> str:
    """16 hex digits that change with any array of a tree whose path is `among` those asked for."""
    sums = {path: int(x) for path, x in checksums(tree).items() if among(path)}
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()[:16]


@jax.jit  # arrays of one shape are traced once
def _checksum(x: jax.Array) -> jax.Array:
    words = _words(x)
    index = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        index = index * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    mix = words ^ (index * jnp.uint32(0x9E3779B1))
    mix = (mix ^ (mix >> 16)) * jnp.uint32(0x85EBCA6B)
    mix = (mix ^ (mix >> 13)) * jnp.uint32(0xC2B2AE35)
    return (mix ^ (mix >> 16)).sum(dtype=jnp.uint32)


def _words(x: jax.Array) -> jax.Array:
    """The elements' bits as uint32; elements of 8 bytes become two words on a last axis."""
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
