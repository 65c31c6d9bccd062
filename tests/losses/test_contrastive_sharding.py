"""Contrastive losses of a batch that is split over 8 devices: the same numbers, little traffic."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses.contrastive import contrastive_loss
from mmjax.sharding import batch_sharding, make_mesh

N, DIM, CHUNK = 48, 16, 16
MESHES = pytest.mark.parametrize("shape", [{"data": 8}, {"data": 4, "fsdp": 2}])
KINDS = pytest.mark.parametrize("kind", ["softmax", "sigmoid"])


def batch(n):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, DIM))
    y = x + rng.standard_normal((n, DIM))
    ids = rng.integers(0, n, n, np.int32)
    embeds = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    return *(e.astype(np.float32) for e in embeds), ids


@functools.cache
def gradients(kind, implementation, chunk_size):
    def loss(x, y, scale, bias, ids):
        return contrastive_loss(
            x,
            y,
            scale,
            bias,
            kind=kind,
            implementation=implementation,
            chunk_size=chunk_size,
            text_ids=ids,
        )

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))


@MESHES
@KINDS
@pytest.mark.parametrize(
    ("implementation", "chunk_size"), [("dense", CHUNK), ("chunked", CHUNK), ("chunked", 9)]
)
def test_sharded_equals_one_device(shape, kind, implementation, chunk_size):
    x, y, ids = batch(N)
    scalars = jnp.float32(20.0), jnp.float32(-5.0)
    expected = gradients(kind, "dense", chunk_size)(x, y, *scalars, ids)
    mesh = make_mesh(shape)
    with jax.set_mesh(mesh):
        x, y, ids = (jax.device_put(a, batch_sharding(mesh)) for a in (x, y, ids))
        got = gradients(kind, implementation, chunk_size)(x, y, *scalars, ids)
    assert len(got[1][0].sharding.device_set) == 8
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@MESHES
@KINDS
def test_chunks_stay_where_the_rows_are(shape, kind):
    """What travels at a time is one chunk's embeddings, never the batch's, nor its logits."""
    n, chunk_size = 512, 64
    mesh = make_mesh(shape)
    split, whole = batch_sharding(mesh), jax.NamedSharding(mesh, jax.P())

    def struct(shape, sharding, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    with jax.set_mesh(mesh):
        embed, scalar = struct((n, DIM), split), struct((), whole)
        step = gradients(kind, "chunked", chunk_size)
        program = step.lower(embed, embed, scalar, scalar, struct((n,), split, jnp.int32))
        text = program.compile().as_text()
    moves = re.findall(r"= (\S+) (?:all-gather|all-reduce|reduce-scatter)(?:-start)?\(", text)
    sizes = [
        np.prod([int(d) for d in m.split(",") if d])
        for r in moves
        for m in re.findall(r"\[([\d,]*)\]", r)
    ]
    assert max(sizes) == chunk_size * DIM
    assert not re.search(r"(all-to-all|collective-permute)(-start)?\(", text)
