"""Linear maps over the last axes, in fp32 or with bf16 operands."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import dot_general

from mmjax.layers import platform
from mmjax.layers.packed import is_packing, packed_dot
from mmjax.layers.parameters import broadcast_last, param
from mmjax.layers.precision import activation_dtype, mixed_dots
from mmjax.layers.recompute import recompute

# The dots below do not flatten the batch axes: the gradient of the kernel would then contract one
# long axis, which takes XLA's CPU backend twice as long.
_dot_to_fp32 = functools.partial(dot_general, preferred_element_type=jnp.float32)


def _contract_last(x: jax.Array):
    """Dimension numbers that contract the last axis of x with the first of the kernel."""
    return ((x.ndim - 1,), (0,)), ((), ())


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _mixed_dot(x: jax.Array, kernel: jax.Array, x_dtype) -> jax.Array:
    """x [..., K] @ kernel [K, N] with bf16 operands and fp32 result, also in the backward pass.

    Saves the bf16 copies for the backward pass. `x_dtype` is the dtype of x.
    """
    return _mixed_forward(x, kernel, x_dtype)[0]


def _mixed_forward(x, kernel, x_dtype):
    del x_dtype
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    return _dot_to_fp32(x, kernel, _contract_last(x)), (x, kernel)


def _mixed_backward(x_dtype, saved, dy):
    x, kernel = saved
    dy = dy.astype(jnp.bfloat16)
    batch = tuple(range(dy.ndim - 1))
    dx = _dot_to_fp32(dy, kernel, (((dy.ndim - 1,), (1,)), ((), ())))
    dkernel = _dot_to_fp32(x, dy, ((batch, batch), ((), ())))
    return dx.astype(x_dtype), dkernel


_mixed_dot.defvjp(_mixed_forward, _mixed_backward)


@jax.custom_vjp
def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """y [..., *features] + bias [*features] in y's dtype; the bias's gradient is summed in fp32."""
    return y + broadcast_last(bias.astype(y.dtype), y.ndim)


def _add_bias_forward(y, bias):
    return add_bias(y, bias), bias


def _add_bias_backward(bias, dy):
    batch = tuple(range(dy.ndim - bias.ndim))
    if platform.current().bias_gradient_by_product and dy.dtype == jnp.bfloat16:
        # The matrix unit sums faster than the vector unit: a product with ones, exact in fp32.
        ones = jnp.ones((*dy.shape[: len(batch)], 8), dy.dtype)
        return dy, _dot_to_fp32(ones, dy, ((batch, batch), ((), ())))[0].astype(bias.dtype)
    return dy, dy.sum(batch, dtype=jnp.float32).astype(bias.dtype)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


def linear(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    outputs: int = 1,
    dtype="float32",
    before: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """x [..., *inputs] times kernel [*inputs, *outputs], plus bias [*outputs].

    Args:
      before: an elementwise function, applied to x first (an activation).
      outputs: how many of the kernel's last axes are outputs; the others contract with x.
      dtype: of the operands. The result has `precision.activation_dtype(dtype)`.
    """
    features = kernel.shape[kernel.ndim - outputs :]
    batch = x.shape[: x.ndim - kernel.ndim + outputs]
    x = x.reshape(*batch, -1)
    kernel = kernel.reshape(x.shape[-1], *features)
    as_matrix = platform.current().kernels_as_matrices
    if as_matrix:
        # Several axes cost transposes on CPU. (Elsewhere merging could gather a sharded axis.)
        kernel = kernel.reshape(x.shape[-1], -1)

    def product(x, kernel):
        if before is not None:
            x = before(x)
        if mixed_dots(dtype):
            return _mixed_dot(x, kernel, x.dtype)
        x, kernel = x.astype(dtype), kernel.astype(dtype)
        return dot_general(x, kernel, _contract_last(x))

    if before is not None and platform.current().recomputes and not mixed_dots(dtype):
        product = recompute(product)
    y = product(x, kernel)
    if as_matrix:
        y = y.reshape(*batch, *features)
    if bias is not None:
        y = add_bias(y, bias)
    return y


def class_head(classes: int, name: str = "head") -> "Linear":
    """The map from features to class logits, initialized to 0."""
    init = nn.initializers.zeros
    return Linear((classes,), ("embed", "classes"), kernel_init=init, name=name)


class Linear(nn.Module):
    """A linear map from the last axes of x to new ones: [..., *inputs] -> [..., *features].

    Attributes:
      features: sizes of the new axes; names: logical axes of the kernel [*inputs, *features].
      kernel_init: called with the kernel's matrix shape [prod(inputs), prod(features)]; bias_init:
        with features.
      unbiased: an index of the first new axis that has no bias; None: all have one. The parameter
        `bias` is then shorter by one along that axis.
      order: maps the output axes, the last of kernel and bias, to one axis: [..., N].
      before: an elementwise function, applied to x first (an activation).
    """

    features: tuple[int, ...]
    names: tuple[str | None, ...]
    use_bias: bool = True
    dtype: str = "float32"
    kernel_init: Callable = nn.initializers.lecun_normal()
    order: Callable[[jax.Array], jax.Array] | None = None
    before: Callable[[jax.Array], jax.Array] | None = None
    unbiased: int | None = None
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        outputs = len(self.features)
        inputs = x.shape[x.ndim - (len(self.names) - outputs) :]
        shape = (*inputs, *self.features)
        matrix = (math.prod(inputs), math.prod(self.features))

        def init(key, shape, dtype):
            return self.kernel_init(key, matrix, dtype).reshape(shape)

        packed = self.has_variable("packed", "kernel")
        kernel = None if packed else param(self, "kernel", init, shape, self.names)
        bias = None
        if self.use_bias:
            names = self.names[len(inputs) :]
            first, *rest = self.features
            size = first if self.unbiased is None else first - 1
            bias = param(self, "bias", self.bias_init, (size, *rest), names)
            if self.unbiased is not None:
                bias = jnp.insert(bias, self.unbiased, 0.0, axis=0)
        if packed:
            x = x if self.before is None else self.before(x)
            batch = x.shape[: x.ndim - len(inputs)]
            y = packed_dot(x.reshape(*batch, -1), self.get_variable("packed", "kernel"), self.dtype)
            y = y.reshape(*batch, *self.features).astype(activation_dtype(self.dtype))
            return y if bias is None else add_bias(y, bias)
        if self.order is not None:
            kernel, outputs = self.order(kernel), 1
            bias = None if bias is None else self.order(bias)
        elif is_packing(self):
            self.put_variable("packed", "kernel", kernel.reshape(matrix).T.astype(self.dtype))
        return linear(x, kernel, bias, outputs=outputs, dtype=self.dtype, before=self.before)
