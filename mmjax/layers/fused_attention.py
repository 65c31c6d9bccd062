"""Self-attention as one TPU kernel: no logits in HBM, no other layouts of queries, keys and values.

An image or a caption is short: all of one example fits a chip's vector memory, so the softmax is
the plain one, and the backward pass keeps nothing but the queries, keys and values.
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
    """[..., 3, H, D] -> [..., 3·H·D]: queries, keys and values of a group of heads side by side.

    The order of the kernel's input, for the weights that make it; heads split over chips stay so.
    """
    *outer, _, heads, head_dim = weights.shape
    group = max(1, LANES // head_dim)
    weights = weights.reshape(*outer, 3, heads // group, group * head_dim)
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
    settings = (head_dim, causal, interpret)
    mask = None if key_mask is None else key_mask.astype(jnp.int32)
    if jax.sharding.get_abstract_mesh().empty:
        return _attention(qkv, mask, *settings)
    wide = sharding.spec("batch", "length", "heads")
    return jax.shard_map(  # the compiler cannot split a kernel
        lambda qkv, mask: _attention(qkv, mask, *settings),
        in_specs=(wide, sharding.spec("batch", "length")),
        out_specs=wide,
        check_vma=False,
    )(qkv, mask)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _attention(qkv, mask, head_dim, causal, interpret):
    return _forward(qkv, mask, head_dim, causal, interpret)[0]


def _forward(qkv, mask, head_dim, causal, interpret):
    batch, length, width = qkv.shape
    out = jax.ShapeDtypeStruct((batch, length, width // 3), qkv.dtype)
    masks = () if mask is None else (mask[:, None, :],)
    kernel = functools.partial(_forward_kernel, head_dim=head_dim, causal=causal)
    return _call(kernel, "attention", 2, out, interpret, qkv, *masks), (qkv, mask)


def _backward(head_dim, causal, interpret, saved, dy):
    qkv, mask = saved
    masks = () if mask is None else (mask[:, :, None],)
    kernel = functools.partial(_backward_kernel, head_dim=head_dim, causal=causal)
    return _call(kernel, "attention_backward", 5, qkv, interpret, qkv, dy, *masks), None


_attention.defvjp(_forward, _backward)


def _call(kernel, name, products, out, interpret, qkv, *others):
    """Run a kernel on one example after another. products: of [L, D] and [D, L], for each head."""
    batch, length, width = qkv.shape
    arrays = (qkv, *others, out)

    def example(x):
        return pl.BlockSpec((1, *x.shape[1:]), lambda i: (i, 0, 0))

    return pl.pallas_call(
        kernel,
        grid=(batch,),
        in_specs=[example(x) for x in arrays[:-1]],
        out_specs=example(out),
        out_shape=jax.ShapeDtypeStruct(out.shape, out.dtype),
        name=name,
        interpret=interpret,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel",), vmem_limit_bytes=MEMORY
        ),
        cost_estimate=pl.CostEstimate(
            flops=products * 2 * batch * length * length * (width // 3),
            transcendentals=batch * length * length * (width // 3),
            bytes_accessed=sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays),
        ),
        metadata={"grid": str(batch)},  # for `mmjax.plan.compiled`
    )(*arrays[:-1])


def _forward_kernel(qkv_ref, *refs, head_dim, causal):
    *mask_ref, out_ref = refs
    seen = _seen(mask_ref, out_ref.shape[1], causal, keys=1)
    for start, size, heads in _groups(out_ref.shape[2], head_dim):
        query, key, value = _read(qkv_ref, start, size)
        query = query * jnp.asarray(head_dim**-0.5, query.dtype)
        out = None
        for own in heads:
            logits = _dot(query, _only(own, key), 1, 1)
            weights, total = _softmax(logits, seen, keys=1)
            y = _dot(weights.astype(value.dtype), value, 1, 0) / total
            out = y if out is None else jnp.where(own, y, out)
        out_ref[0, :, pl.ds(start, size)] = out.astype(out_ref.dtype)


def _backward_kernel(qkv_ref, dy_ref, *refs, head_dim, causal):
    """As in Dao et al. 2022, section B.4; [keys, queries], which spares all transposes but one."""
    *mask_ref, dqkv_ref = refs
    seen = _seen(mask_ref, dy_ref.shape[1], causal, keys=0)
    scale = head_dim**-0.5
    for start, size, heads in _groups(dy_ref.shape[2], head_dim):
        query, key, value = _read(qkv_ref, start, size)
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
        for i, grad in enumerate(grads):
            dqkv_ref[0, :, pl.ds(3 * start + i * size, size)] = grad.astype(dqkv_ref.dtype)


def _groups(width, head_dim):
    """First lane, lanes, and for each head which lanes are its own: for each group of heads."""
    size = max(LANES, head_dim)
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, size), 1)
    heads = [(lane >= first) & (lane < first + head_dim) for first in range(0, size, head_dim)]
    return [(start, size, heads) for start in range(0, width, size)]


def _read(qkv_ref, start, size):
    return (qkv_ref[0, :, pl.ds(3 * start + i * size, size)] for i in range(3))


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
