"""Whole runs: the real commands in processes of their own, on a folder of real PNG files."""

import json
import os
import signal
import subprocess
import sys
import time

import commands
import numpy as np
import pytest
from runs import ROOT, TRAIN, refused, state_of
from tiny_clip import get_config, write_folder

from mmjax.process import preemption


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    write_folder(root)
    return root


def settings(root):
    places = ("data.train.root", "evals.all.source.root", "evals.health.source.root")
    return [f"--config.{place}={root}" for place in places]


def train(root, workdir, *more, **kwargs):
    return commands.run(*TRAIN, f"--workdir={workdir}", *settings(root), *more, **kwargs)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.fixture(scope="module")
def undisturbed(pictures, tmp_path_factory):
    """Begun as a person does, with nothing imported."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    done = subprocess.run(
        [sys.executable, *TRAIN, f"--workdir={workdir}", *settings(pictures)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": commands.xla_flags(devices=1)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_a_run_leaves_everything_that_it_promises(undisturbed):
    workdir, done = undisturbed
    assert "recall@1" in done.stdout and str(workdir / "report.html") in done.stdout
    page = (workdir / "report.html").read_text()
    assert "<html" in page and "http://" not in page.replace("http://www.w3.org", "")
    manifest = json.loads((workdir / "run.json").read_text())
    assert manifest["results"]["step"] == 6
    assert set(manifest["results"]["evaluators"]) == {"all", "health"}
    assert manifest["config"]["batch_size"] == 8 and "jax" in manifest["packages"]
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "train/loss" in r] == [1, 2, 3, 4, 5, 6]
    assert {"train/logit_scale", "truncation_rate", "learning_rate"} <= rows[0].keys()
    assert (workdir / "tokenizer" / "tokenizer.json").exists()
    assert list((workdir / "tensorboard").glob("events*"))
    assert "image/transformer" in (workdir / "parameters.txt").read_text()


def test_a_second_start_says_that_it_is_done(undisturbed, pictures):
    workdir, _ = undisturbed
    before = (workdir / "metrics.jsonl").read_text()
    again = train(pictures, workdir)
    assert again.returncode == 0 and "is done" in again.stdout and "recall@1" in again.stdout
    assert (workdir / "metrics.jsonl").read_text() == before


def test_evaluate_gives_the_same_results(undisturbed):
    workdir, _ = undisturbed
    manifest = json.loads((workdir / "run.json").read_text())
    trained = manifest.pop("results")["values"]
    (workdir / "run.json").write_text(json.dumps(manifest))
    (workdir / "results.jsonl").unlink()
    (workdir / "report.html").unlink()
    done = commands.run("-m", "mmjax.evaluate", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    again = json.loads((workdir / "run.json").read_text())["results"]["values"]
    assert again == pytest.approx(trained, abs=1e-6) and (workdir / "report.html").exists()


def test_evaluating_with_other_settings_replaces_nothing(undisturbed):
    workdir, _ = undisturbed
    kept = {name: (workdir / name).read_bytes() for name in ("report.html", "metrics.jsonl")}
    own = json.loads((workdir / "run.json").read_text())["results"]
    rows = (workdir / "results.jsonl").read_text()
    command = ("-m", "mmjax.evaluate", f"--workdir={workdir}")
    done = commands.run(*command, "--config.evals.all.captions_per_image=1")
    assert done.returncode == 0, done.stderr
    assert {name: (workdir / name).read_bytes() for name in kept} == kept
    assert json.loads((workdir / "run.json").read_text())["results"] == own
    more = (workdir / "results.jsonl").read_text()
    (new,) = map(json.loads, more.removeprefix(rows).splitlines())  # `health` did not change
    assert (new["step"], new["evaluator"]) == (6, "all")
    assert new["fingerprint"] != own["evaluators"]["all"]
    (report,) = (workdir / "reports").iterdir()
    assert str(report) in done.stdout and report.name.startswith("step-6-")


def start_and_wait_for(root, workdir, name, *more):
    """A running train that has just made `workdir/name`."""
    process = commands.start(*TRAIN, f"--workdir={workdir}", *settings(root), *more)
    deadline = time.monotonic() + 120
    while not (workdir / name).exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process


NO_EVALS = "--config.evals={}"
LONG = ("--config.total_steps=400", "--config.checkpoint.every=100", "--config.log_every=50")
LONG += (NO_EVALS,)


@pytest.fixture(scope="module")
def long_run(pictures, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("long")
    done = train(pictures, workdir, *LONG)
    assert done.returncode == 0, done.stderr
    return workdir


def assert_same_run(workdir, other):
    """The same parameters in the end, and every step, if taken twice both times, the same batch."""
    assert_same(state_of(workdir, 400), state_of(other, 400))
    seen, want = ((path / "batches.jsonl").read_text().splitlines() for path in (workdir, other))
    assert set(seen) == set(want) and len(want) == 400


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_resumed_run_is_bitwise_the_same(
    pictures, tmp_path, long_run, number
):
    process = start_and_wait_for(pictures, tmp_path, "checkpoints/100", *LONG)
    process.send_signal(number)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 128 + number, error
    assert f"{preemption.NAMES[number]}: saved step" in out
    done = train(pictures, tmp_path, *LONG)
    assert done.returncode == 0 and "resumed at step" in done.stdout, done.stderr
    assert_same_run(tmp_path, long_run)


def test_kill_during_a_save_resumes_from_the_newest_complete(pictures, tmp_path, long_run):
    process = start_and_wait_for(pictures, tmp_path, "checkpoints/200", *LONG)
    process.kill()
    process.communicate()
    # What a kill in the middle of a save leaves behind.
    torn = tmp_path / "checkpoints" / "300.orbax-checkpoint-tmp"
    torn.mkdir(exist_ok=True)
    (torn / "half").write_bytes(b"\0" * 100)
    done = train(pictures, tmp_path, *LONG)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path, long_run)


def test_a_full_disk_loses_nothing_saved(pictures, tmp_path):
    first = train(pictures, tmp_path, *LONG, "--config.total_steps=200")
    assert first.returncode == 0, first.stderr

    # Every file ends where a checkpoint's description, always of one size, is not yet whole.
    size = (tmp_path / "checkpoints" / "200" / "state" / "_METADATA").stat().st_size - 1

    longer = (*LONG, "--allow_change=total_steps", "--config.total_steps=225")
    longer += ("--config.checkpoint.every=20",)
    assert size > 225 / 200 * (tmp_path / "batches.jsonl").stat().st_size  # the log has room
    full = train(pictures, tmp_path, *longer, file_size=size)
    refused(full, "Checkpoint 220", "File too large", "checkpoints/200", "room")
    done = train(pictures, tmp_path, *longer)
    assert done.returncode == 0 and "resumed at step 200" in done.stdout, done.stderr


def test_another_config_is_shown_as_a_diff_and_refused_unless_allowed(undisturbed, pictures):
    workdir, _ = undisturbed
    change = "--config.optim.learning_rate=0.5"
    refused(train(pictures, workdir, change), "optim.learning_rate: 0.01 -> 0.5", "allow_change")
    allowed = train(pictures, workdir, change, "--allow_change=optim.learning_rate")
    assert allowed.returncode == 0, allowed.stderr
    assert "changed config.optim.learning_rate: 0.01 -> 0.5" in allowed.stdout


def test_bad_input_is_one_sentence(pictures, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(train(empty, tmp_path / "a"), str(empty))
    odd = train(pictures, tmp_path / "b", "--config.batch_size=12", devices=8)
    refused(odd, "config.batch_size is 12", "8 or 16")
    refused(train(pictures, tmp_path / "c", "--config.optim.lerning_rate=1"), "learning_rate")
    refused(
        train(pictures, tmp_path / "d", "--config.model.image.image_size=(32,32)"),
        "'image'",
        "[16, 16, 3]",
    )
    # What an evaluation lacks is said before the training, not after.
    wrong = ("all.source.root=nowhere", "all.transform=decode | tokenize(12)")
    for change, words in zip(wrong, ("no folder nowhere", "tokenize comes after choose_caption")):
        done = train(pictures, tmp_path / "e", f"--config.evals.{change}")
        refused(done, "config.evals.all", words)
        assert "step 1" not in done.stdout + done.stderr


def test_a_missing_column_and_corrupt_images(pictures, tmp_path):
    other = tmp_path / "data"
    write_folder(other)
    for i in range(2):
        (other / f"{i:03d}.png").write_bytes(b"not an image")
    done = train(other, tmp_path / "run", NO_EVALS)  # two are allowed
    assert done.returncode == 0, done.stderr
    bad = (tmp_path / "run" / "bad_records.jsonl").read_text().splitlines()
    assert len(bad) == 2 and all(json.loads(b)["kind"] == "unreadable_image" for b in bad)
    (other / "003.png").write_bytes(b"nor this")
    refused(train(other, tmp_path / "run2"), "3 bad records of 24", "bad_records.jsonl")
    (other / "captions.jsonl").write_text('{"file_name": "005.png", "words": "a square"}\n')
    refused(train(other, tmp_path / "run3"), "caption")


def test_the_workdirs_tokenizer_must_be_the_checkpoints(pictures, tmp_path):
    assert train(pictures, tmp_path, "--config.total_steps=2", NO_EVALS).returncode == 0
    file = tmp_path / "tokenizer" / "tokenizer.json"
    file.write_text(file.read_text().replace('"square"', '"circle"').replace("squ", "cir"))
    refused(
        train(pictures, tmp_path, "--config.total_steps=2", NO_EVALS), "tokenizer", "checkpoint"
    )


def test_a_step_that_is_not_finite_names_the_tensor_and_keeps_the_checkpoint(pictures, tmp_path):
    done = train(pictures, tmp_path, "--config.optim.learning_rate=1e30", "--config.log_every=1")
    refused(done, "not finite", "Step", f"python -m mmjax.replay --workdir={tmp_path} --step=")
    assert "Traceback" not in done.stderr


def test_exact_accumulation_from_the_command_line(pictures, tmp_path):
    flags = (NO_EVALS, "--config.model.image.dropout=0.0")
    whole = train(pictures, tmp_path / "whole", *flags)
    parts = train(pictures, tmp_path / "parts", *flags, "--config.microbatches=4")
    assert whole.returncode == parts.returncode == 0, parts.stderr
    losses = [
        [json.loads(line).get("train/loss") for line in (tmp_path / name / "metrics.jsonl").open()]
        for name in ("whole", "parts")
    ]
    np.testing.assert_allclose(losses[0][:6], losses[1][:6], rtol=1e-4)


def test_devices_of_one_cpu_take_one_step_at_a_time(pictures, tmp_path, monkeypatch):
    """Else XLA ends a run of some thousand steps: collectives wait for each other's threads."""
    from mmjax import train as loop

    waited = []
    monkeypatch.setattr(loop.jax, "block_until_ready", waited.append)
    config = get_config()
    config.total_steps, config.log_every, config.evals = 2, 2, {}
    config.data.train.root = str(pictures)
    assert loop.jax.local_device_count() == 8
    loop.train(config.lock(), tmp_path / "run")
    assert len(waited) == 2 and all("loss" in scalars for scalars in waited)
