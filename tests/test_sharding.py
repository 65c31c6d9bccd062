"""The mesh and its rules: what a device really holds, and every refusal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from mmjax import sharding

SHAPES = ({"data": 8}, {"data": 4, "fsdp": 2}, {"data": 2, "fsdp": 2, "tensor": 2})


# ---- make_mesh


@settings(max_examples=60)
@given(
    sizes=st.lists(st.sampled_from([-1, 0, 1, 2, 3, 4, 8]), min_size=3, max_size=3),
    count=st.sampled_from([1, 2, 6, 8]),
)
def test_mesh_has_the_sizes_asked_for_or_is_refused(sizes, count):
    """Every way to fill in the -1 tried: exactly one fits, or there is an error."""
    fits = [
        filled
        for left in range(1, 9)
        if np.prod(filled := [left if s == -1 else s for s in sizes]) == count and 0 not in filled
    ]
    possible = {tuple(f) for f in fits} if sizes.count(-1) <= 1 else set()
    shape = dict(zip(sharding.MESH_AXES, sizes))
    if not possible:
        with pytest.raises(ValueError, match="config.mesh"):
            sharding.make_mesh(shape, jax.devices()[:count])
        return
    mesh = sharding.make_mesh(shape, jax.devices()[:count])
    assert tuple(mesh.shape[a] for a in sharding.MESH_AXES) in possible
    assert sorted(d.id for d in mesh.devices.flat) == list(range(count))


def test_mesh_defaults_and_messages():
    assert dict(sharding.make_mesh().shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert dict(sharding.make_mesh({"fsdp": 4, "data": -1}).shape)["data"] == 2
    with pytest.raises(ValueError, match=r"unknown axes \['model'\].*data.*fsdp.*tensor"):
        sharding.make_mesh({"model": 2})
    with pytest.raises(ValueError, match="multiple of 3 devices and there are 8"):
        sharding.make_mesh({"data": -1, "fsdp": 3})
    with pytest.raises(ValueError, match="product is 8"):
        sharding.make_mesh({"data": 4})
    with pytest.raises(ValueError, match="at most one"):
        sharding.make_mesh({"data": -1, "fsdp": -1})


# ---- names


@pytest.mark.parametrize(("name", "nearest"), [("embd", "embed"), ("head", "heads")])
def test_unknown_name_raises_with_the_nearest(name, nearest):
    x = jnp.zeros((8, 4))
    mesh = sharding.make_mesh()
    for call in (
        lambda: sharding.spec("batch", name),
        lambda: sharding.shard(x, "batch", name),
        lambda: sharding.named(mesh, name),
        lambda: sharding.check_divides(mesh, (8,), (name,), "x"),
    ):
        with pytest.raises(ValueError, match=f"'{name}'.*Did you mean '{nearest}'"):
            call()


def test_two_names_on_one_mesh_axis():
    with pytest.raises(ValueError, match="twice"):
        sharding.spec("mlp", "heads")
    assert sharding.spec(None, "mlp") == P(None, ("tensor",))


@pytest.mark.parametrize("shape", SHAPES)
def test_shards_hold_their_part(shape):
    """[32 embed, 8 mlp]: sizes of the parts are divided by hand."""
    mesh = sharding.make_mesh(shape)
    values = np.arange(256.0, dtype=np.float32).reshape(32, 8)
    array = jax.device_put(values, sharding.named(mesh, "embed", "mlp"))
    rows, columns = 32 // shape.get("fsdp", 1), 8 // shape.get("tensor", 1)
    assert {s.data.shape for s in array.addressable_shards} == {(rows, columns)}
    for part in array.addressable_shards:
        np.testing.assert_array_equal(part.data, values[part.index])
    batch = jax.device_put(values, sharding.batch_sharding(mesh))
    parts = shape["data"] * shape.get("fsdp", 1)
    assert {s.data.shape for s in batch.addressable_shards} == {(32 // parts, 8)}


# ---- shard() is live


@pytest.mark.parametrize("shape", SHAPES)
def test_shard_is_live_under_set_mesh(shape):
    """A whole input comes out split: without the constraint XLA would leave it whole."""
    mesh = sharding.make_mesh(shape)
    x = jax.device_put(jnp.ones((16, 8)), sharding.named(mesh, None, None))

    def constrained(x):
        return sharding.shard(x * 2, "batch", "mlp")

    with jax.set_mesh(mesh):
        live, free = jax.jit(constrained)(x), jax.jit(lambda x: x * 2)(x)
        compiled = jax.jit(constrained).lower(x).compile()
    parts = shape["data"] * shape.get("fsdp", 1)
    want = (16 // parts, 8 // shape.get("tensor", 1))
    assert live.addressable_shards[0].data.shape == want
    assert compiled.output_shardings.shard_shape(x.shape) == want
    assert free.addressable_shards[0].data.shape == (16, 8)
    np.testing.assert_array_equal(live, 2 * np.ones((16, 8)))


def test_shard_without_a_mesh_does_nothing_but_check():
    x = jnp.ones((16, 8))
    assert sharding.shard(x, "batch", "act_embed") is x
    for names in ((), ("batch",), ("batch", "length", "act_embed")):
        with pytest.raises(ValueError, match=rf"{len(names)} names .*\(16, 8\)"):
            sharding.shard(x, *names)
    with jax.set_mesh(sharding.make_mesh()), pytest.raises(ValueError, match="1 names"):
        jax.jit(lambda x: sharding.shard(x, "batch"))(x)


# ---- check_divides


def test_check_divides_names_axis_divisor_and_nearest_multiple():
    mesh = sharding.make_mesh({"data": 1, "fsdp": 2, "tensor": 4})
    sharding.check_divides(mesh, (6, 8, 3), ("embed", "heads", None), "Parameter q")
    with pytest.raises(ValueError) as error:
        sharding.check_divides(mesh, (6, 11), ("embed", "heads"), "Parameter q")
    message = str(error.value)
    assert "Parameter q has 11 along 'heads'" in message
    assert "multiple of 4 (nearest: 12)" in message
    with pytest.raises(ValueError, match=r"nearest: 4\)"):
        sharding.check_divides(mesh, (1,), ("heads",), "Parameter q")  # never 0


@settings(max_examples=40)
@given(st.integers(1, 50), st.sampled_from(sorted(sharding.RULES)))
def test_check_divides_refuses_what_jax_cannot_place(size, name):
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    try:
        sharding.named(mesh, name).shard_shape((size,))
        placeable = True
    except ValueError:
        placeable = False
    if placeable:
        sharding.check_divides(mesh, (size,), (name,), "x")
    else:
        with pytest.raises(ValueError, match="use a multiple of"):
            sharding.check_divides(mesh, (size,), (name,), "x")
