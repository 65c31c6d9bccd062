"""Which numbers flow where: the one place that asks for the platform.

On TPU and GPU `dtype="bfloat16"` means bf16 activations. XLA's CPU backend does a bf16 -> bf16 dot
silently in fp32, and everything between the dots is slower in bf16; a dot with bf16 operands and
an fp32 result takes the fast path. So on CPU only the operands of the dots are bf16.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax
import jax.numpy as jnp

_target = contextvars.ContextVar("platform that is compiled for", default=None)


def on_cpu() -> bool:
    """True where the program will run on XLA's CPU backend: by default, this process's."""
    return (_target.get() or jax.default_backend()) == "cpu"


def on_tpu() -> bool:
    """True where the program will run on TPUs."""
    return (_target.get() or jax.default_backend()) == "tpu"


@contextlib.contextmanager
def compiling_for(platform: str) -> Iterator[None]:
    """Inside, programs are traced for another platform ("tpu", "gpu", "cpu") than this process's.

    What jax has traced before and holds in a cache keeps its form.
    """
    before = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(before)


def activation_dtype(dtype) -> jnp.dtype:
    """Dtype of the residual stream and of everything between two dots."""
    return jnp.dtype(jnp.float32) if on_cpu() else jnp.dtype(dtype)


def mixed_dots(dtype) -> bool:
    """True where dots take bf16 operands and give fp32 results, with fp32 activations between."""
    return on_cpu() and jnp.dtype(dtype) == jnp.bfloat16
