"""The precision of activations and dots on each platform.

On TPU and GPU `dtype="bfloat16"` means bf16 activations. XLA's CPU backend silently computes a
bf16 -> bf16 dot in fp32, and everything between the dots is slower in bf16; a dot with bf16
operands and an fp32 result takes the fast path. So on CPU only the operands of the dots are bf16.
"""

import jax.numpy as jnp

from mmjax.layers import platform


def activation_dtype(dtype) -> jnp.dtype:
    """Dtype of the residual stream and of everything between dots."""
    fp32 = platform.current().fp32_activations
    return jnp.dtype(jnp.float32) if fp32 else jnp.dtype(dtype)


def mixed_dots(dtype) -> bool:
    """True where dots take bf16 operands and give fp32 results, with fp32 activations between."""
    return platform.current().fp32_activations and jnp.dtype(dtype) == jnp.bfloat16
