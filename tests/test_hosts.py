"""Whole runs over two processes of four devices each, against one process of eight.

One chain, since every start costs seconds: a run alone (`alone`); a run of two that SIGTERM to
one of them ends, resumed by one process on four devices and then by four on two devices each; and
a run of two, by the SLURM launcher,
that finds the lone run's newest checkpoint damaged, goes on from the one before, and evaluates.
"""

import json
import os
import shutil
import signal
import stat
import sys
import time

import commands
import numpy as np
import pytest
from runs import CONFIG, ROOT, ends, flip_bits, free_port, state_of, train_here
from tiny_clip import write_folder

from mmjax import config as configs
from mmjax.workdir.metrics import read_metrics

# A large eps: where a gradient is zero but for rounding, Adam would amplify the rounding.
OPTIM = {"name": "adamw", "learning_rate": 1e-2, "warmup_steps": 2, "eps": 1e-2}
STEPS = 8


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    write_folder(root)
    evals = {"all": {"kind": "retrieval", "transform": "decode"}}
    evals["all"]["source"] = {"kind": "folder", "root": str(root), "captions": "captions.jsonl"}
    return [
        f"--config={CONFIG}",
        f"--config.data.train.root={root}",
        f"--config.evals={evals}",
        f"--config.optim={OPTIM}",
        f"--config.total_steps={STEPS}",
        "--config.checkpoint.every=4",
        "--config.model.image.depth=1",
        "--config.model.text.depth=1",
    ]


def start(command, workdir, *flags, devices=4):
    return commands.start("-m", f"mmjax.{command}", f"--workdir={workdir}", *flags, devices=devices)


def several(count, command, workdir, *flags, devices=4):
    flags = (*flags, f"--coordinator=localhost:{free_port()}", f"--num_processes={count}")
    return [
        start(command, workdir, *flags, f"--process_id={i}", devices=devices) for i in range(count)
    ]


def two(command, workdir, *flags):
    return several(2, command, workdir, *flags)


def batches_of(workdir):
    """step -> checksum of every array of its batch, as it was taken last."""
    lines = (workdir / "batches.jsonl").read_text().splitlines()
    return {row.pop("step"): row for row in map(json.loads, lines)}


def assert_close(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-5, rtol=1e-5, err_msg=name)


def losses(workdir):
    rows = read_metrics(workdir)  # which leaves out a line that is just being written
    return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}


def results(workdir):
    return json.loads((workdir / "run.json").read_text())["results"]["values"]


@pytest.fixture(scope="module")
def alone(flags, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "alone"
    ((code, _, error),) = ends([start("train", workdir, *flags, devices=8)])
    assert code == 0, error
    return workdir


def test_sigterm_to_one_process_stops_both_at_one_step_and_one_goes_on_and_four_after_it(
    flags, alone, tmp_path
):
    workdir = tmp_path / "run"
    flags = [*flags, "--config.evals={}", "--config.checkpoint.every=1"]
    flags += [f"--config.checkpoint.keep={STEPS}"]
    both = two("train", workdir, *flags)
    deadline = time.monotonic() + 300
    while not losses(workdir):
        assert both[0].poll() is None and time.monotonic() < deadline, ends(both)
        time.sleep(0.02)
    both[1].send_signal(signal.SIGTERM)
    done = ends(both)
    assert [code for code, _, _ in done] == [143, 143], done
    assert "SIGTERM: saved step" in done[0][1] and "SIGTERM" not in done[1][1]
    # Perhaps just where a checkpoint was due.
    saved = max(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    assert 0 < saved < STEPS
    assert not (workdir / "report.html").exists()
    ((code, out, error),) = ends([start("train", workdir, *flags)])
    assert code == 0 and f"resumed at step {saved} of {STEPS}" in out, error
    # The same examples in the same order, else the losses would differ at once.
    np.testing.assert_allclose(
        list(losses(workdir).values()), list(losses(alone).values()), rtol=1e-5
    )
    assert len(losses(workdir)) == STEPS
    assert_close(state_of(workdir, STEPS), state_of(alone, STEPS))

    # as if the one had been killed after its first step, in a place where there are four
    for step in range(saved + 2, STEPS + 1):
        shutil.rmtree(workdir / "checkpoints" / str(step))
    (workdir / "batches.jsonl").write_text("")
    done = ends(several(4, "train", workdir, *flags, devices=2))
    assert [code for code, _, _ in done] == [0] * 4, done
    begins = min(saved + 1, STEPS)
    assert f"resumed at step {begins} of {STEPS}" in done[0][1] and "8 devices" in done[0][1]
    seen, wanted = batches_of(workdir), batches_of(alone)
    assert "example_id" in seen[STEPS] and seen == {s: wanted[s] for s in seen}
    assert set(seen) == set(range(begins + 1, STEPS + 1))
    assert_close(state_of(workdir, STEPS), state_of(alone, STEPS))


def test_two_processes_go_on_from_one_past_damage_by_the_slurm_launcher_and_evaluate_alike(
    flags, alone, tmp_path
):
    workdir = tmp_path / "run"
    shutil.copytree(alone, workdir)
    flip_bits(workdir / "checkpoints" / str(STEPS))
    (workdir / "report.html").unlink()
    srun = tmp_path / "srun"
    srun.write_text(f'#!/bin/bash\nexec {sys.executable} {CONFIG.with_name("fake_srun.py")} "$@"\n')
    srun.chmod(srun.stat().st_mode | stat.S_IEXEC)
    job = free_port() - (65535 - 2**12 + 1)  # jax makes the port out of the job's number
    cluster = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": str(job % 2**12),
        "SLURM_NTASKS": "2",
    }
    config, *overrides = flags
    script = ROOT / "experiments" / "launch" / "slurm.sh"
    launch = "import subprocess, sys; sys.exit(subprocess.call(['bash', *sys.argv[1:]]))"
    command = ("-c", launch, script, config.partition("=")[2], workdir, *overrides)
    ((code, out, error),) = ends([commands.start(*command, devices=4, **cluster)])
    assert code == 0, (out, error)
    assert "ok  all: is ready" in out and f"resumed at step 4 of {STEPS}" in out
    assert out.count("ok  all") == 1  # process 0 alone writes
    assert out.count(f"renamed to {STEPS}.damaged, resuming from step 4") == 1
    assert "2 processes on 1 hosts, 8 devices" in out
    assert_close(state_of(workdir, STEPS), state_of(alone, STEPS))
    assert results(workdir) == pytest.approx(results(alone), abs=1e-6)
    assert [r["step"] for r in read_metrics(workdir)] == [r["step"] for r in read_metrics(alone)]
    assert (workdir / "report.html").exists()


def test_two_processes_write_the_captions_that_one_writes(flags, tmp_path):
    """One trains and evaluates; two evaluate the same checkpoint."""
    layers = {"depth": 1, "heads": 2, "mlp_dim": 32}
    model = {
        "name": "captioner",
        "image": {**layers, "width": 16, "patch_size": 8, "image_size": (16, 16)},
        "text": {"vocab_size": 320, "width": 16, "length": 12, "decoder": layers},
    }
    evals = json.loads(flags[2].partition("=")[2].replace("'", '"'))
    beams = {"beams": 2, "max_new_tokens": 4}
    evals["all"] |= {"kind": "captioning", "decode": beams, "prompt": True}
    evals["all"]["transform"] = "decode | first_caption | tokenize(8)"
    evals["unasked"] = evals["all"] | {"prompt": False, "decode": {"max_new_tokens": 4}}
    writes = [
        f"--config.model={model}",
        "--config.loss={}",
        "--config.loss_weights={'captioning': 1.0}",
        f"--config.evals={evals}",
        "--config.validation=('all', 'unasked')",  # so that the report has their metrics alone
        "--config.total_steps=2",
    ]
    one, both = tmp_path / "one", tmp_path / "two"
    # Without the depths of CLIP's towers.
    train_here(configs.load(str(CONFIG), [*flags[1:-2], *writes]), one)
    shutil.copytree(one, both)
    manifest = json.loads((both / "run.json").read_text())
    manifest.pop("results")
    (both / "run.json").write_text(json.dumps(manifest))
    for name in ("results.jsonl", "report.html"):
        (both / name).unlink()
    done = ends(two("evaluate", both))
    assert [code for code, _, _ in done] == [0, 0], done
    assert results(both) == pytest.approx(results(one), abs=1e-6)


def test_a_lost_picture_is_passed_over_if_allowed_and_a_read_that_hangs_ends_the_run(
    flags, tmp_path
):
    root = tmp_path / "pictures"
    write_folder(root)
    lossy = ["--config.data.max_lost_records=1", "--config.step_timeout_seconds=10"]
    lossy += [f"--config.data.train.root={root}", "--config.total_steps=100000"]
    lossy += ["--config.evals={}", "--config.checkpoint.every=100000"]
    workdir = tmp_path / "run"
    process = start("train", workdir, *flags, *lossy, devices=1)

    def wait_for_steps(more):
        deadline, first = time.monotonic() + 300, None
        while True:
            seen = max(losses(workdir), default=0)
            first = seen if first is None and seen else first
            if first is not None and seen >= first + more:
                return
            assert process.poll() is None and time.monotonic() < deadline, ends([process])
            time.sleep(0.05)

    wait_for_steps(1)
    (root / "007.png").unlink()
    wait_for_steps(30)  # ten epochs of three batches: it was asked for, and the run goes on
    os.mkfifo(tmp_path / "fifo")  # as on a network disk that has stopped answering
    os.replace(tmp_path / "fifo", root / "008.png")  # at no moment is there no such file
    ((code, _, error),) = ends([process])
    assert code == 3, error
    assert "007.png" in error and "the next record replaces it" in error
    assert "config.step_timeout_seconds = 10" in error and "read_bytes" in error
