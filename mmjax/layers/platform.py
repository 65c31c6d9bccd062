"""Every choice of implementation that depends on the backend, in one place.

All implementations of one computation give the same results up to rounding. The default is the
backend of this process; `compiling_for` selects another one, as `mmjax.plan` does to compile for a
TPU on a CPU host, or overrides single decisions, as tests do.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

import jax


@dataclasses.dataclass(frozen=True)
class Platform:
    """The decisions of a platform. The defaults are for GPUs and backends that are not listed.

    Attributes:
      fp32_activations: with dtype="bfloat16" only the operands of dots are bf16 (see
        layers/precision.py).
      kernels_as_matrices: a dot takes its kernel with its output axes merged into one.
      convolution_as_product: a 3x3 convolution is an im2col and one matmul.
      depthwise_by_shifts: a depthwise convolution is a sum of shifted products.
      two_rows: a product of one row in bf16 or int8 takes that row twice.
      recomputes: in fp32, activations and attention weights are recomputed in the backward pass (in
        bf16 it would double the time of a step on CPU).
      attends_by_head: attention with many weights is computed one head after the other, so that
        those of one head stay in the cache.
      unrolled_layers: a stack without remat is unrolled, not a loop.
      layers_apart: a loop over tokens takes a separate array for each layer.
      packed_kernels: kernels are packed once before a loop over tokens (see layers/packed.py).
      cache_merges_rows_and_heads: batch rows and heads are one axis of a key/value cache.
      fused_attention: self-attention is one Pallas kernel where it fits (TPUs only).
      row_major_stream: the residual stream [B, L, D] is constrained to a row-major memory layout.
      bias_gradient_by_product: bf16 gradients of biases are summed by a product with ones.
      guard_by_select: a non-finite step is undone by selects, not by a branch.
      lockstep: with several devices in one process, each step waits for the previous one to end.
    """

    name: str
    fp32_activations: bool = False
    kernels_as_matrices: bool = False
    convolution_as_product: bool = False
    depthwise_by_shifts: bool = False
    two_rows: bool = False
    recomputes: bool = False
    attends_by_head: bool = False
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
    depthwise_by_shifts=True,
    two_rows=True,
    recomputes=True,
    attends_by_head=True,
    unrolled_layers=True,
    layers_apart=True,
    packed_kernels=True,
    cache_merges_rows_and_heads=True,
    lockstep=True,
)
PLATFORMS = {p.name: p for p in (CPU, GPU, TPU)}

_target = contextvars.ContextVar("platform that is compiled for", default=None)


def current() -> Platform:
    """The platform that programs are traced for; by default this process's backend."""
    return _target.get() or named(jax.default_backend())


def named(backend: str) -> Platform:
    """The platform of a JAX backend."""
    return PLATFORMS.get(backend) or dataclasses.replace(GPU, name=backend)


@contextlib.contextmanager
def compiling_for(platform: str | Platform) -> Iterator[None]:
    """Trace programs inside the context for another platform.

    Programs that jax has already traced and cached are not traced again.

    Args:
      platform: "tpu", "gpu", "cpu", or a `Platform`.
    """
    before = _target.set(named(platform) if isinstance(platform, str) else platform)
    try:
        yield
    finally:
        _target.reset(before)
