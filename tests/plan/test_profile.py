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
