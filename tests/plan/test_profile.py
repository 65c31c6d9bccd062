# ruff: noqa: E501  (HLO)
"""Where a step's time goes: by hand, and of a real trace."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.plan import profile
from mmjax.plan.categories import CATEGORIES, categories

HLO = """\
HloModule jit_train_step, is_scheduled=true

%fused (a: f32[4,4]) -> f32[4,4] {
  %a = f32[4,4]{1,0} parameter(0)
  %product = f32[4,4]{1,0} dot(%a, %a), metadata={op_name="jit(s)/jvp(CLIP)/text/mlp/up/dot_general"}
  ROOT %gelu = f32[4,4]{1,0} tanh(%product), metadata={op_name="jit(s)/jvp(CLIP)/text/mlp/tanh"}
}

%sum (b: f32[4]) -> f32[4] {
  %b = f32[4]{0} parameter(0)
  ROOT %c = f32[4]{0} negate(%b), metadata={op_name="jit(s)/transpose(jvp(CLIP))/norm/neg"}
}

ENTRY %main (p: f32[4,4], q: f32[4]) -> f32[4,4] {
  %p = f32[4,4]{1,0} parameter(0)
  %q = f32[4]{0} parameter(1)
  %mlp = f32[4,4]{1,0} fusion(%p), kind=kOutput, calls=%fused, metadata={op_name="x/mlp/tanh"}
  %bare = f32[4]{0} fusion(%q), kind=kLoop, calls=%sum
  %qkv = f32[4,4]{1,0} dot(%p, %p), metadata={op_name="jit(s)/jvp(CLIP)/layers/attention/attention._own/qkv/dot_general"}
  %scores = f32[4,4]{1,0} dot(%p, %p), metadata={op_name="jit(s)/transpose(jvp(CLIP))/layers/attention/transpose(jvp())/dot_general"}
  %soft = f32[4,4]{1,0} exponential(%p), metadata={op_name="jit(s)/layers/attention/jit(_where)/exp"}
  %normed = f32[4,4]{1,0} add(%p, %p), metadata={op_name="jit(s)/layers/layers._normed/norm_attention/add"}
  %logits = f32[4,4]{1,0} dot(%p, %p), metadata={op_name="jit(s)/jvp(loss)/dot_general"}
  %adam = f32[4,4]{1,0} multiply(%p, %p), metadata={op_name="jit(s)/cond/branch_1_fun/optimizer/mul"}
  %gather = f32[8,4]{1,0} all-gather-start(%p), dimensions={0}
  %kernel = f32[4,4]{1,0} custom-call(%p), custom_call_target="__cublas$gemm", metadata={op_name="jit(s)/mlp/up/dot_general"}
  %loop = f32[4,4]{1,0} while(%p), condition=%sum, body=%sum
  ROOT %embed = f32[4,4]{1,0} add(%p, %p)
}
"""


def test_categories_by_hand():
    module, found = categories(HLO)
    assert module == "jit_train_step"
    entry = re.findall(r"^  (?:ROOT )?%(\w+) = ", HLO.partition("ENTRY")[2], re.MULTILINE)
    assert {name: found[name] for name in entry if name not in "pq"} == {
        "mlp": "matmul",
        "bare": "norm",  # of what it returns, as it has no name of its own
        "qkv": "matmul",
        "scores": "attention",
        "soft": "attention",
        "normed": "norm",
        "logits": "loss",
        "adam": "optimizer",
        "gather": "collectives",
        "kernel": "matmul",
        "loop": None,
        "embed": "other",
    }


@pytest.mark.parametrize("order", [1, -1])
def test_moments_are_divided_among_what_runs(order):
    events = [(0, 4, "a"), (1, 3, "b"), (1, 2, "b"), (6, 7, "a"), (9, 9, "c"), (6.5, 8, "c")]
    found = profile.spread(events[::order])
    want = {"a": 1 + 1 / 3 + 1 / 2 + 1 + 0.5 + 0.25, "b": 2 / 3 + 1 / 2, "c": 0.25 + 1.0}
    assert {k: v for k, v in found.items() if v} == pytest.approx(want)
    assert profile.spread([]) == {}


def test_moments_are_divided_as_by_small_steps():
    rng = np.random.default_rng(0)
    starts, kinds = rng.integers(0, 50, 60), rng.integers(0, 3, 60)
    events = [(s, s + int(rng.integers(0, 9)), str(k)) for s, k in zip(starts, kinds)]
    want = dict.fromkeys("012", 0.0)
    for moment in range(60):
        running = [kind for start, end, kind in events if start <= moment < end]
        for kind in running:
            want[kind] += 1 / len(running)
    assert profile.spread(events) == pytest.approx(want)


def space(planes):
    """A trace as XLA writes it: plane -> line -> [(name, start in us, duration, statistics)]."""
    text = []
    for plane, lines in planes.items():
        names, stats = {}, {}
        text.append(f'planes {{ name: "{plane}"')
        for line, events in lines.items():
            text.append(f'lines {{ name: "{line}" timestamp_ns: 5000')
            for name, start, duration, given in events:
                at = names.setdefault(name, len(names) + 1)
                found = "".join(
                    f"stats {{ metadata_id: {stats.setdefault(key, len(stats) + 1)} "
                    + (f"uint64_value: {x} }}" if isinstance(x, int) else f'str_value: "{x}" }}')
                    for key, x in given.items()
                )
                times = f"offset_ps: {start * 10**6} duration_ps: {duration * 10**6}"
                text.append(f"events {{ metadata_id: {at} {times} {found} }}")
            text.append("}")
        for field, table in (("event_metadata", names), ("stat_metadata", stats)):
            for name, at in table.items():
                text.append(f'{field} {{ key: {at} value {{ id: {at} name: "{name}" }} }}')
        text.append("}")
    return jax.profiler.ProfileData.text_proto_to_serialized_xspace("\n".join(text))


OTHER = HLO.replace("norm_attention/add", "optimizer/add")  # the step of another shape
HOST = {"/host:CPU": {"main": [("x", 0, 90, {"hlo_op": "qkv", "hlo_module": "jit_train_step"})]}}


def gpu():
    """CUPTI: the instruction of a kernel is in its statistics, but for a CUDA graph's."""

    def of(op, module="jit_train_step", program=7):
        return {"hlo_op": op, "hlo_module": module, "program_id": program, "correlation_id": 3}

    compute = [
        ("void cutlass<float, 4>", 0, 10, of("qkv")),
        ("softmax", 10, 4, of("soft")),
        ("loop_add_fusion", 14, 1, of("normed")),
        ("loop_add_fusion", 20, 2, of("normed", program=8)),
        ("in a graph", 22, 3, {"cuda_graph_id": 5, "correlation_id": 4}),
        ("another program", 25, 1, of("qkv", "jit_mean")),
    ]
    streams = {
        "Stream #13(Kernel)": compute,
        "Stream #14(MemcpyH2D)": [("MemcpyH2D", 30, 2, {"memcpy_details": "size:4"})],
        "Stream #15(Kernel)": [("ncclDevKernel_AllGather", 10, 4, of("gather"))],
        "CUPTI overhead": [("flush", 0, 100, {})],
        "XLA Ops": [("qkv", 0, 15, of("qkv"))],  # as derived by XProf
    }
    return {"/device:GPU:1": {"Stream #13(Kernel)": compute}, "/device:GPU:0": streams}


def tpu():
    """The name of an event is the instruction in HLO; the program's is on another line."""
    ops = [
        ("%qkv = f32[4,4]{1,0:T(8,128)} dot(f32[4,4] %p, f32[4,4] %p)", 0, 10),
        ("%soft = f32[4,4]{1,0} exponential(f32[4,4] %p)", 10, 4),
        ("%loop = f32[4,4] while(f32[4,4] %p)", 10, 9),  # encloses what it runs
        ("%normed = f32[4,4] add(f32[4,4] %p, f32[4,4] %p)", 14, 1),
        ("%gather = f32[8,4] all-gather-start(f32[4,4] %p)", 15, 4),
        ("%normed = f32[4,4] add(f32[4,4] %p, f32[4,4] %p)", 20, 2),
        ("%qkv = f32[4,4]{1,0} dot(f32[4,4] %p, f32[4,4] %p)", 25, 6),
    ]
    modules = [("jit_train_step(81)", 0, 19), ("jit_train_step(92)", 20, 2), ("jit_mean(3)", 25, 6)]
    lines = {
        "Steps": [("0", 0, 25, {})],
        "XLA Modules": [(*event, {"run_id": 4}) for event in modules],
        "XLA Ops": [(*event, {"device_duration_ps": 1}) for event in ops],
        "Async XLA Ops": [("%gather = f32[8,4] all-gather-start(f32[4,4] %p)", 0, 90, {})],
    }
    names = ("/device:TPU:10", "/device:TPU:2", "/device:TPU:2 SparseCore 0", "/device:CUSTOM:x")
    return {
        name: lines if name == names[1] else {"XLA Ops": lines["Async XLA Ops"]} for name in names
    }


@pytest.mark.parametrize("planes", [gpu, tpu])
def test_traces_of_accelerators(planes, tmp_path):
    """Written by hand after what XLA's tracers write, in two programs of one module."""
    (tmp_path / "a.xplane.pb").write_bytes(space(HOST | planes()))
    found = profile.breakdown(tmp_path / "a.xplane.pb", [HLO, OTHER], 40e-6)
    want = dict.fromkeys(CATEGORIES, 0.0)
    if planes is gpu:  # the gather runs beside the softmax
        want |= {"matmul": 10, "attention": 2, "collectives": 2, "norm": 1, "optimizer": 2}
        want |= {"other": 3 + 1 + 2, "idle": 40 - 23}
    else:
        want |= {"matmul": 10, "attention": 4, "collectives": 4, "norm": 1, "optimizer": 2}
        want |= {"other": 6, "idle": 40 - 27}
    assert found == pytest.approx({k: 1e-6 * v for k, v in want.items()}, abs=1e-12)


def step(x, w):
    with jax.named_scope("attention"):
        y = jnp.tanh(x @ w)
    for _ in range(3):
        y = y @ w
    with jax.named_scope("optimizer"):
        return jnp.exp(y) + w


def test_a_real_trace(tmp_path, capsys):
    """Of a small program, on one of the CPU devices: its products are most of the work."""
    x = jax.random.normal(jax.random.key(0), (700, 700))
    traced = jax.jit(step).trace(x, x)
    run = traced.lower().compile()
    profiler = profile.Profiler({"start": 5, "steps": 3}, tmp_path, 0, 10)
    for number in range(1, 10):
        if profiler.starts_at(number):
            profiler.start(x, wait_seconds=1.0)
        profiler.add({"x": x}, lambda: traced)
        y = run(x, x)
        if profiler.ends_at(number):
            jax.block_until_ready(y)
            profiler.finish(1.0)
    profiler.close()
    found = json.loads((tmp_path / profile.FILE).read_text())
    assert (found["start"], found["steps"]) == (5, 3)
    spent = found["milliseconds"]
    assert set(spent) == {*CATEGORIES, "idle", "host wait"}
    assert spent["host wait"] == 0 and min(spent.values()) >= 0
    assert spent["matmul"] > 1.5 * spent["attention"] > 0 and spent["optimizer"] > 0
    assert spent["norm"] == spent["collectives"] == 0
    said = capsys.readouterr().out
    assert "the time of steps 5 to 7\n" in said and "matmul" in said


def test_the_names_are_those_of_the_code_and_not_of_a_cached_program(tmp_path):
    """Two programs that differ in a scope alone are one to the compile cache."""

    def run(scope):
        profiler = profile.Profiler({"start": 2, "steps": 1}, tmp_path, 0, 10)

        def step(x):
            with jax.named_scope(scope):
                return x @ x + 1.25

        x = jnp.ones((300, 300))
        traced = jax.jit(step).trace(x)
        compiled = traced.lower().compile()
        profiler.start(x, 0.0)
        profiler.add({"x": x}, lambda: traced)
        jax.block_until_ready(compiled(x))
        profiler.finish(0.0)
        return json.loads((tmp_path / profile.FILE).read_text())["milliseconds"]

    assert run("attention")["attention"] > 0
    assert run("loss")["loss"] > 0
    assert not jax.config.jax_compilation_cache_include_metadata_in_key


def test_steps_of_two_shapes_are_told_apart(tmp_path):
    """The same names of instructions are products in one program and of the optimizer in the other,
    whichever of them is compiled first."""

    def step(x):
        with jax.named_scope("attention" if len(x) == 300 else "optimizer"):
            return jnp.exp(x)

    run, profiler = jax.jit(step), profile.Profiler({"start": 2, "steps": 2}, tmp_path, 0, 10)
    arrays = [jnp.zeros((n, 4000)) for n in (300, 3000)]
    for x in arrays:  # as in earlier steps
        run(x)
    profiler.start(arrays, 0.0)
    for number, x in zip((2, 3), reversed(arrays)):
        profiler.add({"x": x}, functools.partial(run.trace, x))
        jax.block_until_ready(run(x))
        assert profiler.ends_at(number) == (number == 3)
    profiler.finish(0.0)
    spent = json.loads((tmp_path / profile.FILE).read_text())["milliseconds"]
    assert spent["optimizer"] > 2 * spent["attention"] > 0


def test_when_it_traces(tmp_path):
    def of(first, start=5, steps=2, total=20, **more):
        settings = {"start": start, "steps": steps}
        found = profile.Profiler(settings, tmp_path, first, total, **more)
        numbers = range(first + 1, total + 1)
        found = [[n for n in numbers if at(n)] for at in (found.starts_at, found.ends_at)]
        return sum(found, [])

    assert of(0) == of(3) == [5, 6]
    assert of(4) == [6, 7]  # its step 5 compiles
    assert of(4, total=6) == [6, 6]  # and the run is over then
    assert of(4, steps=1, total=5) == []
    assert of(0, steps=9, pauses=(0, 100, 4)) == [5, 8]  # an evaluation comes then
    assert of(0, steps=9, pauses=(5, 7)) == [5, 5]
    assert of(5) == of(0, steps=0) == of(0, active=False) == []
    with pytest.raises(ValueError, match="traces the steps 9 to 11, and config.total_steps is 10"):
        profile.check({"start": 9, "steps": 3}, 10)
    profile.check({"start": 9, "steps": 2}, 10)
    profile.check({"start": 50, "steps": 0}, 10)
