"""Kernels as a loop over tokens reads them: laid out once before it, not at every token.

A token's products have one row or a few, so reading the kernels takes most of the time. XLA's CPU
backend reads [out, in] faster than [in, out] (1.2x a token of a GPT-2), and bf16 or int8 fast only
with two rows or more; int8 has a quarter of fp32's bytes.

The Linen collection `packed` holds them. Where it is mutable, `Linear` and `TokenEmbed` put their
matrices there; where it has a layer's matrix, the layer reads that and not its parameter.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from mmjax.layers import platform


class Int8(struct.PyTreeNode):
    """A matrix [N, K] as int8 values [N, K] times a scale [N] of each row, absmax / 127."""

    values: jax.Array
    scale: jax.Array


def is_packing(module: nn.Module) -> bool:
    """True where the caller made `packed` mutable (as it is also while parameters are made)."""
    return module.is_mutable_collection("packed") and not module.is_initializing()


def _scale(x: jax.Array) -> jax.Array:
    """[..., 1]: what takes the largest magnitude of each row to 127."""
    return jnp.maximum(jnp.abs(x).max(-1, keepdims=True).astype(jnp.float32) / 127, 1e-30)


def _rounded(x: jax.Array, scale: jax.Array) -> jax.Array:
    return jnp.round(x.astype(jnp.float32) / scale).astype(jnp.int8)


def in_int8(matrix: jax.Array) -> Int8:
    """A matrix [N, K] in int8."""
    scale = _scale(matrix)
    return Int8(_rounded(matrix, scale), scale[:, 0])


def packed_dot(x: jax.Array, matrix: jax.Array | Int8, dtype: Any) -> jax.Array:
    """x [..., K] times the transpose of a matrix [N, K]: [..., N] in fp32.

    Against an `Int8` each row of x is rounded to int8, too, by a scale of its own, and the sums are
    exact in int32 (Dettmers et al. 2022, arXiv 2208.07339, section 2.1, without its outliers).
    Otherwise the operands have `dtype`.
    """
    batch, x = x.shape[:-1], x.reshape(-1, x.shape[-1])
    if isinstance(matrix, Int8):
        scale = _scale(x)
        y = _dot(_rounded(x, scale), matrix.values, jnp.int32)
        y = y.astype(jnp.float32) * scale * matrix.scale[None]
    else:
        y = _dot(x.astype(dtype), matrix, jnp.float32)
    return y.reshape(*batch, -1)


def _dot(x: jax.Array, matrix: jax.Array, sums: Any) -> jax.Array:
    """x [M, K] times the transpose of a matrix [N, K], added up in another dtype."""
    rows = len(x)
    if rows == 1 and platform.current().two_rows and x.dtype != jnp.float32:
        x = jnp.concatenate([x, x])  # one row alone is ten times slower than two
    dims = ((1,), (1,)), ((), ())
    return jax.lax.dot_general(x, matrix, dims, preferred_element_type=sums)[:rows]
