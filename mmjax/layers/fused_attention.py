"""Attention as one TPU kernel: no logits in HBM, no layout copies of queries, keys and values.

Images and captions are short sequences: a whole example fits in VMEM, so the softmax needs no
blocks, and the backward pass saves only the queries, keys and values. Self-attention takes them as
one array, cross-attention as two: queries, and keys with values.
Source: the idea of Dao et al. 2022 (arXiv 2205.14135), without its blocks.

Heads narrower than a vector register share one. A product over all lanes of such a group, with the
lanes of the other heads set to zero, costs the matrix unit no more than one head alone.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from mmjax import sharding

LANES = 128  # of a vector register
LONGEST = 640  # tokens; the logits of a head for longer sequences do not fit in VMEM
MEMORY = 64 * 2**20  # bytes of VMEM that a kernel may use; every TPU from v4 on has more
MASKED = float(jnp.finfo(jnp.float32).min)


def fits(batch: int, length: int, heads: int, head_dim: int) -> bool:
    """Whether the kernel can take these sizes on the current mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    split = 1 if mesh.empty else mesh.shape["tensor"]
    return (
        length <= LONGEST
        and batch % sharding.batch_parts(mesh) == 0
        and heads % split == 0
        and (heads // split * head_dim) % LANES == 0
        and (LANES % head_dim == 0 or head_dim % LANES == 0)
    )


def together(weights: jax.Array) -> jax.Array:
    """[..., N, H, D] -> [..., N·H·D]: the N parts of each group of heads next to each other.

    This is the order of the kernel's inputs; it is applied to the weights that compute them. The N
    parts are queries, keys and values, or keys and values. The sharding of the heads is kept.
    """
    *outer, parts, heads, head_dim = weights.shape
    group = max(1, LANES // head_dim)
    weights = weights.reshape(*outer, parts, heads // group, group * head_dim)
    return jnp.moveaxis(weights, -3, -2).reshape(*outer, -1)


def fused_attention(
    qkv: jax.Array,
    head_dim: int,
    *,
    causal: bool = False,
    key_mask: jax.Array | None = None,
    interpret: bool = False,
) -> jax.Array:
    """softmax(query · key / sqrt(D)) · value with fp32 logits and softmax.

    Args:
      qkv: [B, L, 3·H·D] in the order of `together`; `fits` says which sizes are allowed.
      causal: a query attends to the keys up to its own position.
      key_mask: [B, L] bool, true on valid keys.
      interpret: run without a TPU, slowly.

    Returns:
      [B, L, H·D] in the dtype of qkv.
    """
    return _on_mesh((qkv,), key_mask, head_dim, causal, interpret)


def fused_cross_attention(
    query: jax.Array,
    key_value: jax.Array,
    head_dim: int,
    *,
    key_mask: jax.Array | None = None,
    interpret: bool = False,
) -> jax.Array:
    """`fused_attention` of queries [B, L, H·D] to keys and values [B, S, 2·H·D]."""
    return _on_mesh((query, key_value), key_mask, head_dim, False, interpret)


def _on_mesh(operands, key_mask, *settings):
    mask = None if key_mask is None else key_mask.astype(jnp.int32)
    if jax.sharding.get_abstract_mesh().empty:
        return _attention(operands, mask, *settings)
    wide = sharding.spec("batch", "length", "heads")
    return jax.shard_map(  # the compiler cannot partition a kernel
        lambda operands, mask: _attention(operands, mask, *settings),
        in_specs=(wide, sharding.spec("batch", "length")),
        out_specs=wide,
        check_vma=False,
    )(operands, mask)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _attention(operands, mask, head_dim, causal, interpret):
    return _forward(operands, mask, head_dim, causal, interpret)[0]


def _forward(operands, mask, head_dim, causal, interpret):
    batch, length, width = operands[0].shape
    width = width // 3 if len(operands) == 1 else width
    out = jax.ShapeDtypeStruct((batch, length, width), operands[0].dtype)
    masks = () if mask is None else (mask[:, None, :],)
    kernel = functools.partial(
        _forward_kernel, count=len(operands), head_dim=head_dim, causal=causal
    )
    (y,) = _call(kernel, "attention", 2, (out,), interpret, operands, *masks)
    return y, (operands, mask)


def _backward(head_dim, causal, interpret, saved, dy):
    operands, mask = saved
    masks = () if mask is None else (mask[:, :, None],)
    kernel = functools.partial(
        _backward_kernel, count=len(operands), head_dim=head_dim, causal=causal
    )
    return _call(kernel, "attention_backward", 5, operands, interpret, operands, dy, *masks), None


_attention.defvjp(_forward, _backward)


def _call(kernel, name, products, outs, interpret, operands, *others):
    """Run a kernel per example. products: how many [L, D] x [D, S] products it does per head."""
    batch, length, _ = operands[0].shape
    keys, wide = operands[-1].shape[1:]
    width = wide // (3 if len(operands) == 1 else 2)
    inputs = (*operands, *others)

    def example(x):
        return pl.BlockSpec((1, *x.shape[1:]), lambda i: (i, 0, 0))

    return pl.pallas_call(
        kernel,
        grid=(batch,),
        in_specs=[example(x) for x in inputs],
        out_specs=tuple(example(x) for x in outs),
        out_shape=tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in outs),
        name=name,
        interpret=interpret,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel",), vmem_limit_bytes=MEMORY
        ),
        cost_estimate=pl.CostEstimate(
            flops=products * 2 * batch * length * keys * width,
            transcendentals=batch * length * keys * width,
            bytes_accessed=sum(math.prod(x.shape) * x.dtype.itemsize for x in (*inputs, *outs)),
        ),
        metadata={"grid": str(batch)},  # for `mmjax.plan.compiled`
    )(*inputs)


def _forward_kernel(*refs, count, head_dim, causal):
    operands, mask_ref, out_ref = refs[:count], refs[count:-1], refs[-1]
    mask = _attention_mask(mask_ref, out_ref.shape[1], causal, keys=1)
    for start, size, heads in _groups(out_ref.shape[2], head_dim):
        query, key, value = _read(operands, start, size)
        query = query * jnp.asarray(head_dim**-0.5, query.dtype)
        out = None
        for own in heads:
            logits = _dot(query, _only(own, key), 1, 1)
            weights, total = _softmax(logits, mask, keys=1)
            y = _dot(weights.astype(value.dtype), value, 1, 0) / total
            out = y if out is None else jnp.where(own, y, out)
        out_ref[0, :, pl.ds(start, size)] = out.astype(out_ref.dtype)


def _backward_kernel(*refs, count, head_dim, causal):
    """Dao et al. 2022, section B.4; logits [keys, queries] save all transposes but one."""
    operands, dy_ref = refs[:count], refs[count]
    mask_ref, grad_refs = refs[count + 1 : -count], refs[-count:]
    mask = _attention_mask(mask_ref, dy_ref.shape[1], causal, keys=0)
    scale = head_dim**-0.5
    for start, size, heads in _groups(dy_ref.shape[2], head_dim):
        query, key, value = _read(operands, start, size)
        query = query * jnp.asarray(scale, query.dtype)
        dy = dy_ref[0, :, pl.ds(start, size)]
        grads = None
        for own in heads:
            logits = _dot(_only(own, key), query, 1, 1)
            weights, total = _softmax(logits, mask, keys=0)
            weights = weights / total
            dweights = _dot(_only(own, value), dy, 1, 1)
            dlogits = weights * (dweights - (weights * dweights).sum(0, keepdims=True))
            weights, dlogits = weights.astype(value.dtype), dlogits.astype(value.dtype)
            new = (
                _dot(dlogits, key, 0, 0) * scale,
                _dot(dlogits, query, 1, 0),
                _dot(weights, dy, 1, 0),
            )
            grads = new if grads is None else [jnp.where(own, *g) for g in zip(new, grads)]
        for (ref, lane), grad in zip(_places(grad_refs, start, size), grads):
            ref[0, :, pl.ds(lane, size)] = grad.astype(ref.dtype)


def _groups(width, head_dim):
    """For each group of heads: its first lane, its lane count, and a lane mask for each head."""
    size = max(LANES, head_dim)
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, size), 1)
    heads = [(lane >= first) & (lane < first + head_dim) for first in range(0, size, head_dim)]
    return [(start, size, heads) for start in range(0, width, size)]


def _places(refs, start, size):
    """The array and first lane of the queries, keys and values of a group."""
    if len(refs) == 1:
        return [(refs[0], 3 * start + i * size) for i in range(3)]
    query, key_value = refs
    return [(query, start), (key_value, 2 * start), (key_value, 2 * start + size)]


def _read(refs, start, size):
    return (ref[0, :, pl.ds(lane, size)] for ref, lane in _places(refs, start, size))


def _only(own, x):
    return jnp.where(own, x, jnp.zeros_like(x))


def _dot(x, y, x_axis, y_axis):
    """The product of two matrices over the given axes, in fp32."""
    dimensions = (((x_axis,), (y_axis,)), ((), ()))
    return jax.lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)


def _softmax(logits, mask, keys):
    """Exponentials of the logits, and their sums over the axis of the keys."""
    if mask is not None:
        logits = jnp.where(mask, logits, MASKED)
    weights = jnp.exp(logits - logits.max(keys, keepdims=True))
    return weights, weights.sum(keys, keepdims=True)


def _attention_mask(mask_ref, length, causal, keys):
    """Attention mask, broadcastable to [L, L]; None: all valid. keys: the axis of the keys."""
    mask = mask_ref[0][0] != 0 if mask_ref else None
    if causal:
        key = jax.lax.broadcasted_iota(jnp.int32, (length, length), keys)
        past = key <= jax.lax.broadcasted_iota(jnp.int32, (length, length), 1 - keys)
        mask = past if mask is None else mask & past
    return mask
