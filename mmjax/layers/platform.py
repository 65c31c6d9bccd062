"""Which form of a computation suits the backend: every decision by platform, in one place.

The forms of one computation give the same numbers up to rounding. Chosen once from the backend of
this process; `compiling_for` chooses for another one, as `mmjax.plan` does, which compiles for a
TPU on a CPU host, or one decision alone, as tests do.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

import jax


@dataclasses.dataclass(frozen=True)
class Platform:
    """The decisions. The defaults are a GPU's, and those of any backend that is not listed.

    Attributes:
      fp32_activations: with dtype="bfloat16" only the operands of dots are bf16 (see
        layers/precision.py).
      kernels_as_matrices: a dot takes its kernel with one axis of outputs, not several.
      convolution_as_product: a 3x3 convolution is one product over patches laid side by side.
      two_rows: a product of one row in bf16 or int8 takes that row twice.
      recomputes: in fp32, activations and attention weights are computed again in the backward pass
        (in bf16 it would double the time of a step on CPU).
      unrolled_layers: a stack without remat is unrolled, not a loop.
      layers_apart: a loop over tokens takes each layer's arrays apart from the others'.
      packed_kernels: kernels are laid out once before a loop over tokens.
      cache_merges_rows_and_heads: these are one axis of a key/value cache.
      fused_attention: self-attention is one Pallas kernel where it fits (TPUs only).
      row_major_stream: the residual stream's memory layout is fixed to [B, L, D] as written.
      bias_gradient_by_product: bf16 gradients of biases are summed by a product with ones.
      guard_by_select: a step that is not finite is undone by selects, not by a branch.
      lockstep: with several devices in one process, each step waits for the last one's end.
    """

    name: str
    fp32_activations: bool = False
    kernels_as_matrices: bool = False
    convolution_as_product: bool = False
    two_rows: bool = False
    recomputes: bool = False
    unrolled_layers: bool = False
    layers_apart: bool = False
    packed_kernels: bool = False
    cache_merges_rows_and_heads: bool = False
    fused_attention: bool = False
    row_major_stream: bool = False
    bias_gradient_by_product: bool = False
    guard_by_select: bool = False
    lockstep: bool = False


GPU = Platform("gpu")
TPU = Platform(
    "tpu",
    unrolled_layers=True,
    fused_attention=True,
    row_major_stream=True,
    bias_gradient_by_product=True,
    guard_by_select=True,
)
CPU = Platform(
    "cpu",
    fp32_activations=True,
    kernels_as_matrices=True,
    convolution_as_product=True,
    two_rows=True,
    recomputes=True,
    unrolled_layers=True,
    layers_apart=True,
    packed_kernels=True,
    cache_merges_rows_and_heads=True,
    lockstep=True,
)
PLATFORMS = {p.name: p for p in (CPU, GPU, TPU)}

_target = contextvars.ContextVar("platform that is compiled for", default=None)


def current() -> Platform:
    """The platform that programs are traced for: by default, that of this process's backend."""
    return _target.get() or named(jax.default_backend())


def named(backend: str) -> Platform:
    """The platform of a JAX backend."""
    return PLATFORMS.get(backend) or dataclasses.replace(GPU, name=backend)


@contextlib.contextmanager
def compiling_for(platform: str | Platform) -> Iterator[None]:
    """Inside, programs are traced for another platform than this process's.

    Args:
      platform: "tpu", "gpu", "cpu", or decisions of one's own.

    What jax has traced before and holds in a cache keeps its form.
    """
    before = _target.set(named(platform) if isinstance(platform, str) else platform)
    try:
        yield
    finally:
        _target.reset(before)
