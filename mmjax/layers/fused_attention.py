"""Attention as one TPU kernel: no logits in HBM, no other layouts of queries, keys and values.

An image or a caption is short: all of one example fits a chip's vector memory, so the softmax is
the plain one, and the backward pass keeps nothing but the queries, keys and values. Those of
self-attention are one array, those of cross-attention two: queries, and keys with values.
Source: the idea of Dao et al. 2022 (arXiv 2205.14135), without its blocks.

Heads narrower than a vector register lie side by side in one. A product over such a group's lanes,
those of the other heads set to zero, costs the matrix unit what one head alone would.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from mmjax import sharding

LANES = 128  # of a vector register
LONGEST = 640  # tokens; beyond it the logits of a head are too many for the vector memory
MEMORY = 64 * 2**20  # bytes of it that a kernel may use; every TPU from v4 on has more
MASKED = float(jnp.finfo(jnp.float32).min)


def fits(batch: int, length: int, heads: int, head_dim: int) -> bool:
    """True where the kernel can be used, on the mesh that is set."""
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
    """[..., N, H, D] -> [..., N·H·D]: the N parts of a group of heads side by side.

    The order of the kernel's inputs, for the weights that make them: queries, keys and values, or
    keys and values. Heads split over chips stay so.
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
      qkv: [B, L, 3·H·D] in the order of `together`; `fits` says which sizes can be.
      causal: a query sees the keys up to its own position.
      key_mask: [B, L] bool, true where a key may be seen.
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
    """As `fused_attention`, of queries [B, L, H·D] to keys and values [B, S, 2·H·D]."""
    return _on_mesh((query, key_value), key_mask, head_dim, False, interpret)


def _on_mesh(operands, key_mask, *settings):
    mask = None if key_mask is None else key_mask.astype(jnp.int32)
    if jax.sharding.get_abstract_mesh().empty:
        return _attention(operands, mask, *settings)
    wide = sharding.spec("batch", "length", "heads")
    return jax.shard_map(  # the compiler cannot split a kernel
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
    """Run a kernel on one example after another. products: of [L, D] and [D, S], for each head."""
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
    seen = _seen(mask_ref, out_ref.shape[1], causal, keys=1)
    for start, size, heads in _groups(out_ref.shape[2], head_dim):
        query, key, value = _read(operands, start, size)
        query = query * jnp.asarray(head_dim**-0.5, query.dtype)
        out = None
        for own in heads:
            logits = _dot(query, _only(own, key), 1, 1)
            weights, total = _softmax(logits, seen, keys=1)
            y = _dot(weights.astype(value.dtype), value, 1, 0) / total
            out = y if out is None else jnp.where(own, y, out)
        out_ref[0, :, pl.ds(start, size)] = out.astype(out_ref.dtype)


def _backward_kernel(*refs, count, head_dim, causal):
    """As in Dao et al. 2022, section B.4; [keys, queries], which spares all transposes but one."""
    operands, dy_ref = refs[:count], refs[count]
    mask_ref, grad_refs = refs[count + 1 : -count], refs[-count:]
    seen = _seen(mask_ref, dy_ref.shape[1], causal, keys=0)
    scale = head_dim**-0.5
    for start, size, heads in _groups(dy_ref.shape[2], head_dim):
        query, key, value = _read(operands, start, size)
        query = query * jnp.asarray(scale, query.dtype)
        dy = dy_ref[0, :, pl.ds(start, size)]
        grads = None
        for own in heads:
            logits = _dot(_only(own, key), query, 1, 1)
            weights, total = _softmax(logits, seen, keys=0)
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
    """First lane, lanes, and for each head which lanes are its own: for each group of heads."""
    size = max(LANES, head_dim)
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, size), 1)
    heads = [(lane >= first) & (lane < first + head_dim) for first in range(0, size, head_dim)]
    return [(start, size, heads) for start in range(0, width, size)]


def _places(refs, start, size):
    """Where the queries, keys and values of a group are: in which array, and from which lane on."""
    if len(refs) == 1:
        return [(refs[0], 3 * start + i * size) for i in range(3)]
    query, key_value = refs
    return [(query, start), (key_value, 2 * start), (key_value, 2 * start + size)]


def _read(refs, start, size):
    return (ref[0, :, pl.ds(lane, size)] for ref, lane in _places(refs, start, size))


def _only(own, x):
    return jnp.where(own, x, jnp.zeros_like(x))


def _dot(x, y, x_axis, y_axis):
    """The product of two matrices over those axes, in fp32."""
    dimensions = (((x_axis,), (y_axis,)), ((), ()))
    return jax.lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)


def _softmax(logits, seen, keys):
    """Its exponentials and their sums over the axis of the keys."""
    if seen is not None:
        logits = jnp.where(seen, logits, MASKED)
    weights = jnp.exp(logits - logits.max(keys, keepdims=True))
    return weights, weights.sum(keys, keepdims=True)


def _seen(mask_ref, length, causal, keys):
    """Which logits count, [L, L] or to be broadcast so; None: all. keys: the axis of the keys."""
    seen = mask_ref[0][0] != 0 if mask_ref else None
    if causal:
        key = jax.lax.broadcasted_iota(jnp.int32, (length, length), keys)
        past = key <= jax.lax.broadcasted_iota(jnp.int32, (length, length), 1 - keys)
        seen = past if seen is None else seen & past
    return seen
