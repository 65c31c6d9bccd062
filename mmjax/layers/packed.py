"""Kernels packed for decoding: converted once before the loop over tokens, not at every token.

Products with one or a few rows are bound by the reading of the kernels. XLA's CPU backend reads
[out, in] faster than [in, out] (1.2x per token of a GPT-2), and is fast in bf16 or int8 only with
two rows or more; int8 has a quarter of fp32's bytes.

The Linen collection `packed` holds them. Where it is mutable, `Linear` and `TokenEmbed` store their
matrices there; where it has a layer's matrix, the layer uses that instead of its parameter.
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
    """True where the caller made `packed` mutable, except during initialization."""
    return module.is_mutable_collection("packed") and not module.is_initializing()


def _scale(x: jax.Array) -> jax.Array:
    """[..., 1]: the int8 scale of each row, absmax / 127."""
    return jnp.maximum(jnp.abs(x).max(-1, keepdims=True).astype(jnp.float32) / 127, 1e-30)


def _rounded(x: jax.Array, scale: jax.Array) -> jax.Array:
    return jnp.round(x.astype(jnp.float32) / scale).astype(jnp.int8)


def in_int8(matrix: jax.Array) -> Int8:
    """A matrix [N, K] in int8."""
    scale = _scale(matrix)
    return Int8(_rounded(matrix, scale), scale[:, 0])


def packed_dot(x: jax.Array, matrix: jax.Array | Int8, dtype: Any) -> jax.Array:
    """x [..., K] times the transpose of a matrix [N, K]: [..., N] in fp32.

    With an `Int8` matrix, x is also quantized to int8, with one scale per row, and the products are
    accumulated exactly in int32 (Dettmers et al. 2022, arXiv 2208.07339, section 2.1, without its
    outliers). Otherwise the operands have `dtype`.
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
    """x [M, K] times the transpose of a matrix [N, K], accumulated in the dtype `sums`."""
    rows = len(x)
    if rows == 1 and platform.current().two_rows and x.dtype != jnp.float32:
        x = jnp.concatenate([x, x])  # one row is ten times slower than two
    dims = ((1,), (1,)), ((), ())
    return jax.lax.dot_general(x, matrix, dims, preferred_element_type=sums)[:rows]
