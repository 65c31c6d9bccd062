"""Costs read from HLO text: programs whose loops and collectives are known."""

# ruff: noqa: E501

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax import sharding
from mmjax.plan import compiled


def compile_text(f, *args):
    return jax.jit(f).lower(*args).compile().as_text()


def on_mesh(body, mesh=None, **specs):
    mesh = sharding.make_mesh(mesh)
    return jax.shard_map(body, mesh=mesh, in_specs=P("data"), check_vma=False, **specs)


X = jax.ShapeDtypeStruct((64, 128), jnp.float32)  # 8 devices: [8, 128], 4096 bytes each


@pytest.mark.parametrize(
    ("kind", "collective", "payload", "sent"),
    [
        ("all-reduce", lambda x: jax.lax.psum(x, "data"), 4096, 2 * 4096 * 7 / 8),
        ("all-gather", lambda x: jax.lax.all_gather(x, "data"), 8 * 4096, 7 * 4096),
        ("reduce-scatter", lambda x: jax.lax.psum_scatter(x, "data"), 4096, 4096 * 7 / 8),
        ("all-to-all", lambda x: jax.lax.all_to_all(x, "data", 0, 0), 4096, 4096 * 7 / 8),
        (
            "collective-permute",
            lambda x: jax.lax.ppermute(x, "data", [(i, (i + 1) % 8) for i in range(8)]),
            4096,
            4096,
        ),
    ],
)
def test_bytes_of_each_collective(kind, collective, payload, sent):
    text = compile_text(on_mesh(collective, out_specs=P("data")), X)
    costs = compiled.costs(text)
    assert costs.collectives == {kind: compiled.Traffic(1, payload, sent)}


def test_a_group_is_the_axes_that_take_part():
    """Over fsdp=2 of data=4 × fsdp=2 a chip sends half of twice its array."""
    f = on_mesh(lambda x: jax.lax.psum(x, "fsdp"), {"data": 4, "fsdp": 2}, out_specs=P("data"))
    costs = compiled.costs(compile_text(f, X))  # [16, 128] a device
    assert costs.collectives["all-reduce"] == compiled.Traffic(1, 8192, 8192)


def test_loops_count_as_often_as_they_run():
    """Five times, and three times three of them: 15 + 9."""

    def body(x):
        def inner(_, y):
            return jax.lax.psum(y, "data") * 0.5

        y = jax.lax.fori_loop(0, 5, lambda _, y: jax.lax.fori_loop(0, 3, inner, y), x)
        return jax.lax.scan(lambda c, _: (jax.lax.psum(c, "data") + 1, None), y, length=9)[0]

    costs = compiled.costs(compile_text(on_mesh(body, out_specs=P("data")), X))
    assert costs.collectives["all-reduce"].count == 5 * 3 + 9
    assert costs.unknown_loops == ()


def test_a_loop_of_unknown_length_counts_once_and_is_named():
    def body(x):
        return jax.lax.while_loop(
            lambda y: jnp.sum(y) > 1, lambda y: jax.lax.psum(y, "data") * 0.01, x
        )

    costs = compiled.costs(compile_text(on_mesh(body, out_specs=P("data")), X))
    assert costs.collectives["all-reduce"].count == 1
    assert len(costs.unknown_loops) == 1


def test_of_a_conditional_the_costly_branch_counts():
    def body(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: jax.lax.psum(x, "data"), lambda x: x, x)

    costs = compiled.costs(compile_text(on_mesh(body, out_specs=P("data")), X))
    assert costs.collectives["all-reduce"].count == 1


def test_a_sharded_matmul_reduces_its_result():
    """[64, K] @ [K, 16] with K split over 8: an all-reduce of [64, 16] floats, by the partitioner."""
    mesh = sharding.make_mesh()
    a = jax.ShapeDtypeStruct((64, 128), jnp.float32, sharding=NamedSharding(mesh, P(None, "data")))
    b = jax.ShapeDtypeStruct((128, 16), jnp.float32, sharding=NamedSharding(mesh, P("data")))
    compile = jax.jit(jnp.matmul, out_shardings=NamedSharding(mesh, P())).lower(a, b).compile()
    size = 64 * 16 * 4
    costs = compiled.costs(compile.as_text())
    assert costs.collectives == {"all-reduce": compiled.Traffic(1, size, 2 * size * 7 / 8)}


# As the TPU compiler writes: no trip count, cycles, named groups, tiled layouts.
TPU = """
HloModule jit_f, is_scheduled=true, num_partitions=8

%fused (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %x = f32[8,128]{1,0:T(8,128)} multiply(%p, %p), backend_config={"estimated_cycles":"7"}
}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}

%body (arg: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %arg = (s32[]{:T(128)}, /*index=1*/f32[8,128]{1,0:T(8,128)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%arg), index=0
  %y = f32[8,128]{1,0:T(8,128)S(1)} get-tuple-element(%arg), index=1
  %two = s32[]{:T(128)} constant(2)
  %next = s32[]{:T(128)} add(%i, %two)
  %f = f32[8,128]{1,0:T(8,128)} fusion(%y), kind=kLoop, calls=%fused, backend_config={"x":"estimated_cycles","estimated_cycles":"100"}
  %r = f32[8,128]{1,0:T(8,128)} all-reduce(%f), replica_groups=mesh['a'=4,'b'=2] {'b'}, to_apply=%add
  ROOT %out = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%next, %r)
}

%cond (arg: (s32[], f32[8,128])) -> pred[] {
  %n = s32[]{:T(128)} constant(11)
  %arg = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%arg), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT
}

ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0)
  %one = s32[]{:T(128)} constant(1)
  %c = s32[]{:T(128)} copy(%one)
  %t = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%c, %x)
  %w = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%t), condition=%cond, body=%body
  %g = f32[8,128]{1,0:T(8,128)} get-tuple-element(%w), index=1
  ROOT %all = f32[64,128]{1,0:T(8,128)} all-gather(%g), dimensions={0}, replica_groups=mesh['a'=4,'b'=2] {'a','b'}, backend_config={"estimated_cycles":"3"}
}
"""


def test_the_tpu_compilers_text():
    """From 1 to below 11 by 2: five times. A fusion's cycles are its own, not what is in it."""
    costs = compiled.costs(TPU)
    assert costs.cycles == 5 * 100 + 3
    assert costs.collectives == {
        "all-reduce": compiled.Traffic(5, 5 * 4096, 5 * 4096),
        "all-gather": compiled.Traffic(1, 8 * 4096, 7 * 4096),
    }
    assert costs.unknown_loops == ()


SPREAD = """
HloModule jit_f, num_partitions=8

%first (p: f32[8,128]) -> f32[64,128] {
  %p = f32[8,128]{1,0} parameter(0)
  ROOT %g = f32[64,128]{1,0} all-gather(%p), channel_id=26, replica_groups={}, dimensions={0}
}

%second (p: f32[8,128]) -> f32[64,128] {
  %p = f32[8,128]{1,0} parameter(0)
  ROOT %g = f32[64,128]{1,0} all-gather(%p), channel_id=26, replica_groups={}, dimensions={0}
}

%other (p: f32[8,128]) -> f32[64,128] {
  %p = f32[8,128]{1,0} parameter(0)
  ROOT %g = f32[64,128]{1,0} all-gather(%p), channel_id=27, replica_groups={}, dimensions={0}
}

ENTRY %main (x: f32[8,128]) -> f32[64,128] {
  %x = f32[8,128]{1,0} parameter(0)
  %a = f32[64,128]{1,0} fusion(%x), kind=kOutput, calls=%first, backend_config={"estimated_cycles":"5"}
  %b = f32[64,128]{1,0} fusion(%x), kind=kOutput, calls=%second, backend_config={"estimated_cycles":"6"}
  ROOT %c = f32[64,128]{1,0} fusion(%x), kind=kOutput, calls=%other, backend_config={"estimated_cycles":"7"}
}
"""


def test_a_collective_spread_over_fusions_counts_once():
    costs = compiled.costs(SPREAD)
    assert costs.cycles == 5 + 6 + 7
    assert costs.collectives["all-gather"] == compiled.Traffic(2, 2 * 8 * 4096, 2 * 7 * 4096)


def in_a_loop(text):
    """SPREAD with its %b and its %c inside a loop of 12 turns."""
    computations, _, _ = text.partition("ENTRY")
    return f"""{computations}
%body (t: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {{
  %t = (s32[], f32[8,128]{{1,0}}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %y = f32[8,128]{{1,0}} get-tuple-element(%t), index=1
  %b = f32[64,128]{{1,0}} fusion(%y), kind=kOutput, calls=%second
  %c = f32[64,128]{{1,0}} fusion(%y), kind=kOutput, calls=%other
  ROOT %next = (s32[], f32[8,128]{{1,0}}) tuple(%i, %y)
}}

%condition (t: (s32[], f32[8,128])) -> pred[] {{
  %t = (s32[], f32[8,128]{{1,0}}) parameter(0)
  ROOT %more = pred[] constant(true)
}}

ENTRY %main (x: f32[8,128]) -> f32[64,128] {{
  %x = f32[8,128]{{1,0}} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[8,128]{{1,0}}) tuple(%zero, %x)
  %loop = (s32[], f32[8,128]{{1,0}}) while(%start), condition=%condition, body=%body, backend_config={{"known_trip_count":{{"n":"12"}}}}
  ROOT %a = f32[64,128]{{1,0}} fusion(%x), kind=kOutput, calls=%first
}}
"""


def test_a_collective_spread_into_a_loop_counts_once_and_one_of_the_loop_each_turn():
    gathers = compiled.costs(in_a_loop(SPREAD)).collectives["all-gather"]
    assert gathers == compiled.Traffic(1 + 12, 13 * 8 * 4096, 13 * 7 * 4096)


# Two kernels with one body, of which libtpu schedules one; and one that it says nothing of.
KERNELS = """
HloModule jit_f

ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0)
  %k.1 = f32[8,128]{1,0} custom-call(%x), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"grid":"6"
}}, backend_config={"custom_call_config":{"body":"TUzv+/="}}
  %k.2 = f32[8,128]{1,0} custom-call(%k.1), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"grid":"5"
}}, backend_config={"custom_call_config":{"body":"TUzv+/="}}
  ROOT %other = f32[8,128]{1,0} custom-call(%k.2), custom_call_target="tpu_custom_call", backend_config={"custom_call_config":{"body":"abc"}}
}
"""
PROFILE = """HLO: <no-hlo-instruction>
 - VECTOR_EUP: (0/206) - 0
HLO: %k.1 = f32[8,128]{1,0} custom-call(%x), frontend_attributes={kernel_metadata={
"grid":"6"
}}
 - VECTOR_ALU: (1062/400) - 0.285177
 - VECTOR_EUP: (80/90) - 0.0859291
HLO: %k.1 = f32[8,128]{1,0} custom-call(%x)
 - VECTOR_EUP: (0/10) - 0
"""


def test_a_kernel_counts_its_bundles_times_its_grid():
    bundles = compiled.schedule(PROFILE)
    assert bundles["k.1"] == 100
    costs = compiled.costs(KERNELS, bundles)
    assert costs.cycles == costs.kernel_cycles == 100 * (6 + 5)
    assert costs.unknown_kernels == ("other",)
    assert compiled.costs(KERNELS, bundles, cores=2).cycles == 100 * (3 + 3)
    assert compiled.costs(KERNELS).unknown_kernels == ("k.1", "k.2", "other")


@pytest.mark.parametrize(
    ("text", "size"),
    [("f32[8,128]{1,0}", 4096), ("(s32[], bf16[3]{0})", 10), ("pred[5]", 5), ("s4[3]", 2)],
)
def test_array_bytes(text, size):
    assert compiled.array_bytes(text) == size


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups={{0,1,2},{3,4,5}}", 3),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", 2),
        ("replica_groups=[8]<=[8]", 8),
        ("replica_groups=mesh['a'=4,'b'=2] {'a':(1)2,'b'}", 4),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([4,2]T(1,0)) {'b'}", 2),
        ("replica_groups={}", 8),
        ("channel_id=1", 8),
    ],
)
def test_group_sizes(groups, size):
    text = TPU.replace("replica_groups=mesh['a'=4,'b'=2] {'a','b'}", groups)
    assert compiled.costs(text).collectives["all-gather"].payload == size * 4096
