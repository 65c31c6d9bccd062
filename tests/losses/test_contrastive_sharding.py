"""Contrastive losses of a batch that is split over 8 devices: the same numbers, little traffic."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contrastive_sharded import DIM, batch, gradients

from mmjax.losses.contrastive import contrastive_loss
from mmjax.sharding import batch_sharding, make_mesh

N, CHUNK = 48, 16
MESHES = pytest.mark.parametrize("shape", [{"data": 8}, {"data": 4, "fsdp": 2}])
KINDS = pytest.mark.parametrize("kind", ["softmax", "sigmoid"])


@KINDS
@pytest.mark.parametrize(
    ("shape", "implementation", "chunk_size"),
    [
        ({"data": 8}, "dense", CHUNK),
        ({"data": 8}, "chunked", CHUNK),
        ({"data": 8}, "chunked", 9),
        ({"data": 4, "fsdp": 2}, "chunked", 9),
    ],
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


@KINDS
@pytest.mark.parametrize(
    ("shape", "chunk_size", "smoothing"),
    [
        ({"data": 8}, 64, 0.0),  # one chunk; below uneven ones
        ({"data": 2}, 5, 0.1),
        ({"fsdp": 4}, 5, 0.1),
        ({"data": 8}, 5, 0.1),
        ({"data": 2, "fsdp": 2, "tensor": 2}, 5, 0.1),
    ],
    ids=str,
)
def test_ring_equals_dense_on_one_device(shape, kind, chunk_size, smoothing):
    x, y, ids = batch(N)
    present = np.arange(N) % 5 != 3
    scalars = jnp.float32(20.0), jnp.float32(-5.0)
    expected = gradients(kind, "dense", 64, smoothing)(x, y, *scalars, ids, present)
    mesh = make_mesh(shape, jax.devices()[: math.prod(shape.values())])
    with jax.set_mesh(mesh):
        arrays = [jax.device_put(a, batch_sharding(mesh)) for a in (x, y, ids, present)]
        x, y, ids, present = arrays
        step = gradients(kind, "ring", chunk_size, smoothing)
        got = step(x, y, *scalars, ids, present)
    assert len(got[1][0].sharding.device_set) == mesh.size
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@KINDS
@pytest.mark.parametrize("devices", [2, 8])
def test_ring_sends_less_than_a_gather_of_both(kind, devices):
    """Forward: texts; back: texts and their gradients. A gather moves both embeddings, twice."""
    n, dim = 512, 256
    mesh = make_mesh({"data": devices}, jax.devices()[:devices])
    split, whole = batch_sharding(mesh), jax.NamedSharding(mesh, jax.P())
    embed = jax.ShapeDtypeStruct((n, dim), jnp.float32, sharding=split)
    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=whole)

    def loss(x, y, scale, bias):
        form = {"kind": kind, "implementation": "ring", "chunk_size": 32}
        losses, metrics = contrastive_loss(x, y, scale, bias, **form)
        return losses.mean(), metrics

    with jax.set_mesh(mesh):
        step = jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True)
        sent = sent_bytes(jax.make_jaxpr(step)(embed, embed, scalar, scalar).jaxpr)
        text = jax.jit(step).lower(embed, embed, scalar, scalar).compile().as_text()
    own = n // devices * dim * 4
    gathers = 4 * (devices - 1) * own
    columns = 6 * devices * n // devices * 4  # a few numbers a text
    assert sent <= (3 * devices - 2) * own + columns
    assert sent <= gathers + columns
    # Nothing larger than a scalar is gathered or summed.
    for shape in re.findall(r"= (\S+) (?:all-gather|all-reduce|all-to-all)(?:-start)?\(", text):
        assert all(not d or int(d) <= 8 for d in re.findall(r"\[([\d,]*)\]", shape)), shape
    assert not re.search(rf"f32\[{n},{n}\]", text)


def sent_bytes(jaxpr, times=1):
    """Bytes that one device sends by ppermute, loops counted as often as they run."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "ppermute":
            total += times * sum(v.aval.size * v.aval.dtype.itemsize for v in eqn.invars)
        inner = times * eqn.params.get("length", 1) if eqn.primitive.name == "scan" else times
        for sub in jax.tree.leaves(eqn.params, is_leaf=lambda p: hasattr(p, "eqns")):
            sub = getattr(sub, "jaxpr", sub)
            if hasattr(sub, "eqns"):
                total += sent_bytes(sub, inner)
    return total


def test_ring_refuses_a_batch_that_it_cannot_split():
    with (
        jax.set_mesh(make_mesh({"data": 8})),
        pytest.raises(ValueError, match="12 pairs for 8 devices"),
    ):
        contrastive_loss(*np.ones((2, 12, 4), np.float32), 1.0, implementation="ring")
