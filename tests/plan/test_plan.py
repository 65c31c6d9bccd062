"""The plan command on toy configs: its numbers against sums by hand, and its ways out."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import commands
import jax
import pytest
import toy

from mmjax import config as configs
from mmjax.layers import platform, precision
from mmjax.plan import __main__ as plan
from mmjax.plan import chips, estimate
from mmjax.plan import page as plan_page
from mmjax.run import experiment
from mmjax.workdir import resume_config

ROOT = Path(__file__).parents[2]
TINY = "--config=tests/helpers/tiny_clip.py"


def quickly(*args):
    """`command`, in a process that has jax imported."""
    return commands.run("-m", "mmjax.plan", *args)


def command(*args, limit=600):
    """`python -m mmjax.plan`, as a person runs it."""
    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    quick += " --xla_cpu_use_fusion_emitters=false"
    env = os.environ | {"XLA_FLAGS": quick}
    env |= {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, "-m", "mmjax.plan", *args],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=limit,
    )


def parameters_by_hand():
    """Of tests/helpers/tiny_clip.py: two towers of 2 blocks of width 16, with projections to 16."""
    block = 4 * (16 * 16 + 16) + (16 * 32 + 32) + (32 * 16 + 16) + 4 * 16
    image = (8 * 8 * 3 * 16 + 16) + 2 * 16 + 4 * 16 + 2 * block + 2 * 16  # class token, 4 patches
    text = 320 * 16 + 12 * 16 + 2 * block + 2 * 16
    return {"image": image, "text": text, "image_proj": 256, "text_proj": 256, "logit_scale": 1}


@pytest.fixture(scope="module")
def numbers():
    done = command(TINY, "--topology=gpu:h100x2", "--json", "--price=2", "--config.ema.decay=0.9")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_parameters_and_state_are_those_added_by_hand(numbers):
    assert numbers["parameters"] == parameters_by_hand()
    total = sum(parameters_by_hand().values())
    assert numbers["state"]["parameters"] == numbers["state"]["moving average"] == 4 * total
    assert 8 * total <= numbers["state"]["optimizer"] <= 8 * total + 16  # two moments, a counter


def test_time_and_cost_follow_from_each_other(numbers):
    step = numbers["compute_seconds"] + numbers["network_seconds"]
    assert numbers["step_seconds"] == step > 0
    assert numbers["mfu"] == pytest.approx(numbers["model_flops"] / step / (2 * 989e12))
    assert numbers["hours"] == pytest.approx(6 * step / 3600)  # 6 steps
    assert numbers["cost"] == pytest.approx(2 * 2 * numbers["hours"])
    assert numbers["examples_per_second_chip"] == pytest.approx(8 / step / 2)


def test_gradients_are_reduced_once(numbers):
    """At least all parameters' gradients, in fp32, from each of two devices."""
    reduced = numbers["collectives"]["all-reduce"]
    total = sum(parameters_by_hand().values())
    assert 4 * total <= reduced["payload"] < 2 * 4 * total
    assert reduced["sent"] == reduced["payload"]  # 2 (n - 1) / n, n = 2
    assert numbers["unknown_loops"] == []


def test_flops_of_a_known_transformer():
    """3 × (2 × parameters of the maps × tokens + attention's two products), and the loss."""
    settings = toy.config(depth=2)
    found = estimate.estimate(settings, chips.parse("cpu:8"))
    weights = 4 * 16 * 16 + 2 * 16 * 32  # of a block

    def tower(tokens):
        return 2 * (2 * weights * tokens + 2 * 2 * tokens * tokens * 16)

    stem = 2 * 4 * (4 * 4 * 3) * 16
    forward = tower(5) + tower(8) + stem + 2 * 2 * 16 * 16
    loss = 2 * 8 * 8 * 16
    # the stem's input needs no gradient
    assert found.model_flops == 8 * (3 * forward - stem) + 3 * loss
    # In fp32 on CPU the attention logits of 2 blocks per tower are computed again.
    again = 8 * 2 * sum(2 * tokens * tokens * 16 for tokens in (5, 8))
    assert found.executed_flops == found.model_flops + again
    assert found.compute_seconds is found.mfu is found.hours is None  # of a CPU nothing is said


def test_a_page_says_what_is_an_estimate():
    done = quickly(TINY, "--topology=cpu:2")
    assert done.returncode == 0, done.stderr
    for word in ("tiny_clip on cpu:2", "these are estimates", "It fits", "all-reduce", "FLOPs"):
        assert word in done.stdout
    assert "MFU" not in done.stdout
    assert f"{sum(parameters_by_hand().values()):,}" in done.stdout


def test_the_limit_stops_it_with_one_sentence():
    done = quickly(TINY, "--topology=cpu:2", "--limit=0.01")
    assert done.returncode == 3
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("error:")]
    assert "--limit=0.01" in line
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("Known so far: ")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--topology=v5e:3x3",), "v5e:16x16"),
        (("--topology=cpu:3",), "use 6 or 9"),  # a batch of 8
        (("--topology=cpu:2", "--config.mesh.tensor=4"), "multiple of 4 devices"),
        (("--topology=cpu:2", "--config.mesh.fdsp=2"), "no key 'fdsp'"),
    ],
)
def test_bad_input_is_one_sentence(args, said):
    done = quickly(TINY, *args)
    assert done.returncode == 2
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("error:")]
    assert said in line
    assert "Traceback" not in done.stderr


# ---- the search, on estimates made up: what a change saves is known


@pytest.fixture(scope="module")
def made_up():
    """Of 8 chips with 100 GB: state 40, activations 100."""
    found = estimate.estimate(toy.config(), chips.parse("cpu:8"))
    return dataclasses.replace(
        found,
        state={"parameters": 10e9, "optimizer": 30e9, "moving average": 0},
        memory={"arguments": 40e9, "activations": 100e9, "peak": 140e9},
        hbm=100e9,
    )


def shrunk(found, settings):
    """The estimate with another config."""
    policy = {"none": 1.0, "dots": 0.5, "full": 0.25}[settings.model.image.remat]
    fsdp = settings.mesh.fsdp
    peak = 40e9 / fsdp + 100e9 * policy / settings.microbatches
    return dataclasses.replace(found, memory={"peak": peak})


@pytest.mark.parametrize(
    ("hbm", "change"),
    [
        (150e9, None),
        (121e9, "mesh.fsdp=2"),
        (100e9, "remat=dots"),
        (56e9, "mesh.fsdp=8 remat=dots"),
        (31e9, "mesh.fsdp=8 remat=full"),
        (18e9, "microbatches=2 mesh.fsdp=8 remat=full"),
    ],
)
def test_the_first_change_that_fits_is_the_cheapest(made_up, hbm, change, monkeypatch):
    settings = toy.config(batch_size=64)
    monkeypatch.setattr(
        plan,
        "estimate",
        lambda s, *_: dataclasses.replace(
            made_up if s is settings else shrunk(made_up, s), hbm=hbm
        ),
    )
    found = plan.plan(settings, chips.parse("cpu:8"))
    if change is None:
        assert found["tried"] == []
        return
    last, one = found["tried"][-1]
    assert one.fits and not any(e.fits for _, e in found["tried"][:-1])
    assert all(any(part in flag for flag in last) for part in change.split())
    page = plan_page.page(found, settings, chips.parse("cpu:8"), None)
    assert "does not fit: " in page and " ".join(last) in page
    assert all(flag.startswith("--config.") for flag in last)


# GB that the contrastive loss of 2^20 pairs holds on one of 8 devices, D = 16: three arrays of fp32
# logits (2^17 rows of 2^20; 2^10 of 2^17 in the ring), and embeddings from elsewhere.
LOSS = {
    ("dense", 1024): 1649.40,
    ("chunked", 1024): 1.74,
    ("ring", 1024): 1.66,
    ("ring", 128): 0.25,
}


@pytest.mark.parametrize(
    ("loss", "hbm", "change"),
    [
        ({"implementation": "dense"}, 150, ("loss.implementation=ring",)),
        (
            {"implementation": "dense", "chunk_size": 1024},
            140.5,
            ("loss.implementation=ring", "loss.chunk_size=128"),
        ),
        (
            {"implementation": "chunked", "chunk_size": 1024},
            141,
            ("loss.implementation=ring", "loss.chunk_size=128"),
        ),
        # a setting that the file lacks
        ({"kind": "sigmoid", "memory_mb": 2e6}, 150, ("loss.implementation=ring",)),
        # the loss is not all that is too much
        (
            {"implementation": "dense", "chunk_size": 1024},
            110,
            ("loss.implementation=ring", "loss.chunk_size=128", "mesh.fsdp=8"),
        ),
        (
            {"implementation": "dense", "chunk_size": 1024},
            80,
            ("loss.implementation=ring", "loss.chunk_size=128", "mesh.fsdp=8", "remat=dots"),
        ),
        ({"implementation": "ring", "chunk_size": 128}, 101, ("remat=dots",)),
    ],
)
def test_the_loss_takes_a_leaner_form_where_it_is_too_large(
    made_up, loss, hbm, change, monkeypatch
):
    settings = toy.config(batch_size=2**20, loss=loss)

    def estimated(settings, *_):
        form = settings.loss.get("implementation", "dense"), settings.loss.get("chunk_size", 1024)
        others = shrunk(made_up, settings).memory["peak"]
        return dataclasses.replace(
            made_up, memory={"peak": others + LOSS[form] * 1e9}, hbm=hbm * 1e9
        )

    monkeypatch.setattr(plan, "estimate", estimated)
    found = plan.plan(settings, chips.parse("cpu:8"))
    last, one = found["tried"][-1]
    assert one.fits and not any(e.fits for _, e in found["tried"][:-1])
    assert all(any(part in flag for flag in last) for part in change)
    assert any("loss" in flag for flag in last) == any("loss" in part for part in change)
    page = plan_page.page(found, settings, chips.parse("cpu:8"), None)
    assert all(part in page for part in change)


def test_the_limit_during_the_search_keeps_what_is_known(made_up, monkeypatch):
    monkeypatch.setattr(plan, "estimate", lambda *_: made_up)

    def run(title, work):
        if title != "the config":
            raise plan.LimitError
        return work()

    found = plan.plan(toy.config(), chips.parse("cpu:8"), run=run)
    assert found["limited"] and found["estimate"] is made_up
    assert "--limit" in plan_page.page(found, toy.config(), chips.parse("cpu:8"), None)


def test_every_change_is_a_config_that_builds(made_up):
    settings = toy.config(batch_size=2**20, loss={"implementation": "dense"})
    changes = list(plan.changes(settings, made_up))
    assert len(changes) >= 9
    assert any("loss" in flag for change in changes for flag in change)
    for change in changes:
        changed = configs.override(settings.copy_and_resolve_references(), change)
        experiment.build(changed, None)
        assert resume_config.diff(settings, changed)


def test_hours_of_whole_batches_are_a_bound(made_up):
    times = {"compute_seconds": 1.0, "network_seconds": 0.0, "peak_flops": 1.0}
    it = dataclasses.replace(made_up, **times, largest=True)
    (hours,) = [x for x in plan_page._time(it, chips.parse("cpu:8"), None) if "hours " in x][:1]
    assert hours.endswith("at most, with each step of the largest part")


def test_large_whole_tensors_are_warned_of(made_up):
    tensor = estimate.Tensor(
        "params/text/embedding", (49408, 512), "–, –", 101_187_584, 101_187_584
    )
    whole = dataclasses.replace(made_up, tensors=[tensor])
    split = dataclasses.replace(
        made_up, tensors=[dataclasses.replace(tensor, spec="–, fsdp", local=tensor.bytes // 2)]
    )
    page = lambda e: plan_page.page(  # noqa: E731
        {"estimate": e, "tried": [], "limited": False}, toy.config(), chips.parse("cpu:8"), None
    )
    assert "are whole on every chip" in page(whole)
    assert "are whole on every chip" not in page(split)
    assert "(–, fsdp)" in page(split)


def test_the_watch_passes_results_and_errors_and_does_not_wait():
    watch = plan.Watch(0.2)
    assert watch("x", lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        watch("x", lambda: 1 / 0)
    with pytest.raises(plan.LimitError):
        watch("x", lambda: time.sleep(30))


def test_the_stages_of_an_estimate_tell_what_is_known():
    told = []
    found = estimate.estimate(toy.config("vit"), chips.parse("cpu:1"), lambda *x: told.append(x))
    assert [stage for stage, _ in told] == ["building the model", "tracing the step", "compiling"]
    state = sum(found.state.values())
    assert told[2][1]["parameters"] == sum(found.parameters.values())
    assert told[2][1]["flops"] == found.executed_flops
    assert abs(told[2][1]["state"] - state) < 100  # the step and the finite flag
    watch = plan.Watch(60, usual=12.3)
    for stage, known in told:
        watch.tell(stage, known)
    assert watch._facts("the config", 5.0) == ["the config: compiling, 5 s (the last time 12 s)"]
    text = plan_page.known(watch.known, False)
    assert f"{sum(found.parameters.values()):,} parameters" in text and "FLOPs per step" in text
    assert json.loads(plan_page.known(watch.known, True)) == told[2][1]


@pytest.mark.parametrize(
    ("message", "gib"),
    [
        ("RESOURCE_EXHAUSTED: Ran out of memory. Used 20.50G of 15.75G hbm.", 20.5),
        ("RESOURCE_EXHAUSTED: temporaries (656.00G) exceeds available HBM (15.75G).", 656),
        ("INTERNAL: Used 20.50G of 15.75G hbm.", None),
        ("RESOURCE_EXHAUSTED: too many files", None),
    ],
)
def test_the_compilers_refusal_is_read(message, gib):
    found = estimate.out_of_memory(message)
    assert found == (None if gib is None else gib * chips.GIB)


# ---- other platforms


def test_the_layers_ask_what_is_compiled_for():
    assert platform.current() == platform.CPU
    assert precision.activation_dtype("bfloat16") == "float32"
    with platform.compiling_for("tpu"):
        assert platform.current().fused_attention
        assert precision.activation_dtype("bfloat16") == "bfloat16"
        assert not precision.mixed_dots("bfloat16")
    assert platform.current() == platform.CPU
    assert platform.named("another") == dataclasses.replace(platform.GPU, name="another")


def traced(backend):
    run = toy.build(toy.config(model={"dtype": "bfloat16"}))
    with jax.set_mesh(run.mesh), platform.compiling_for(backend):
        return str(run.train_step.trace(run.state, estimate._batch(run), run.numbers(0)).jaxpr)


def test_the_program_of_another_platform_is_another():
    """Elsewhere the residual stream is bf16; on GPUs layers lie in a loop."""
    here, tpu, gpu = (traced(backend) for backend in ("cpu", "tpu", "gpu"))
    stream = "bf16[8,8,16]"  # [batch, length, width]
    assert stream in tpu and stream in gpu
    assert "unroll=2" in here and "unroll=2" in tpu and "unroll=2" not in gpu


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: the extra tpu-plan"
)
def test_a_tpu_without_a_tpu():
    done = command(TINY, "--topology=v5e:2x2", "--json")
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    assert numbers["parameters"] == parameters_by_hand()
    assert numbers["compute_seconds"] > 0 and 0 < numbers["mfu"] < 1
    assert numbers["unknown_loops"] == []
    assert numbers["collectives"]["all-reduce"]["count"] > 0
    assert numbers["hbm"] == 15.75 * chips.GIB
