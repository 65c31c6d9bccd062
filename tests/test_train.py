"""Whole runs on a folder of real PNG files.

The real commands in processes of their own where signals, exit codes or a full disk matter; else
`mmjax.train.train` in this process.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import commands
import jax
import numpy as np
import pytest
from runs import CONFIG, ROOT, TRAIN, refused, state_of, train_here
from tiny_clip import write_folder

from mmjax import config as configs
from mmjax import evaluate
from mmjax.process import preemption
from mmjax.run import goodput
from mmjax.workdir import jsonl


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    write_folder(root)
    return root


def settings(root, *more):
    places = ("data.train.root", "evals.all.source.root", "evals.health.source.root")
    return [*(f"--config.{place}={root}" for place in places), *more]


def train(root, workdir, *more, **kwargs):
    return commands.run(*TRAIN, f"--workdir={workdir}", *settings(root, *more), **kwargs)


def config_of(root, *more):
    return configs.load(str(CONFIG), settings(root, *more))


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


WITHOUT_DROPOUT = "--config.model.image.dropout=0.0"


@pytest.fixture(scope="module")
def undisturbed(pictures, tmp_path_factory):
    """Begun as a person does, with nothing imported."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    given = settings(pictures, WITHOUT_DROPOUT, "--config.profile={'start': 3, 'steps': 2}")
    done = subprocess.run(
        [sys.executable, *TRAIN, f"--workdir={workdir}", *given],
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
    assert [start["step"] for start in manifest["starts"]] == [0]
    assert manifest["data"]["examples"] > 0 and f"{manifest['data']['examples']:,} examples" in page
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "train/loss" in r] == [1, 2, 3, 4, 5, 6]
    assert {"train/logit_scale", "truncation_rate", "learning_rate"} <= rows[0].keys()
    assert (workdir / "tokenizer" / "tokenizer.json").exists()
    assert list((workdir / "tensorboard").glob("events*"))
    assert "image/transformer" in (workdir / "parameters.txt").read_text()
    assert "goodput" in rows[0] and "Goodput" in page and "goodput: " in done.stdout
    assert "the time of steps 3 to 4\n" in done.stdout and "Steps 3 to 4" in page
    spent = json.loads((workdir / "profile.json").read_text())["milliseconds"]
    assert all(spent[name] > 0 for name in ("matmul", "attention", "norm", "loss", "optimizer"))
    assert list(workdir.glob("profile/**/*.xplane.pb"))


def test_a_second_start_says_that_it_is_done(undisturbed, pictures, capsys):
    workdir, _ = undisturbed
    before = (workdir / "metrics.jsonl").read_text()
    train_here(config_of(pictures, WITHOUT_DROPOUT), workdir)
    said = capsys.readouterr().out
    assert "is done" in said and "recall@1" in said
    assert (workdir / "metrics.jsonl").read_text() == before


def test_the_workdirs_tokenizer_must_be_the_checkpoints(undisturbed, pictures, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed[0], workdir)
    file = workdir / "tokenizer" / "tokenizer.json"
    file.write_text(file.read_text().replace('"square"', '"circle"').replace("squ", "cir"))
    with pytest.raises(ValueError, match="(?s)tokenizer.*checkpoint"):
        train_here(config_of(pictures, WITHOUT_DROPOUT), workdir)


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


def test_evaluating_with_other_settings_replaces_nothing(undisturbed, capsys):
    workdir, _ = undisturbed
    kept = {name: (workdir / name).read_bytes() for name in ("report.html", "metrics.jsonl")}
    own = json.loads((workdir / "run.json").read_text())["results"]
    rows = (workdir / "results.jsonl").read_text()
    evaluate.evaluate(workdir, overrides=["--config.evals.all.captions_per_image=1"])
    assert {name: (workdir / name).read_bytes() for name in kept} == kept
    assert json.loads((workdir / "run.json").read_text())["results"] == own
    more = (workdir / "results.jsonl").read_text()
    (new,) = map(json.loads, more.removeprefix(rows).splitlines())  # `health` did not change
    assert (new["step"], new["evaluator"]) == (6, "all")
    assert new["fingerprint"] != own["evaluators"]["all"]
    (report,) = (workdir / "reports").iterdir()
    assert str(report) in capsys.readouterr().out and report.name.startswith("step-6-")


def test_exact_accumulation_from_the_command_line(undisturbed, pictures, tmp_path):
    parts = train(pictures, tmp_path, WITHOUT_DROPOUT, NO_EVALS, "--config.microbatches=4")
    assert parts.returncode == 0, parts.stderr
    losses = [
        [json.loads(line).get("train/loss") for line in (workdir / "metrics.jsonl").open()]
        for workdir in (undisturbed[0], tmp_path)
    ]
    np.testing.assert_allclose(losses[0][:6], losses[1][:6], rtol=1e-4)


def test_another_config_is_shown_as_a_diff_and_refused_unless_allowed(
    undisturbed, pictures, capsys
):
    workdir, _ = undisturbed
    changed = config_of(pictures, WITHOUT_DROPOUT, "--config.optim.learning_rate=0.5")
    with pytest.raises(ValueError, match="(?s)optim.learning_rate: 0.01 -> 0.5.*allow_change"):
        train_here(changed, workdir)
    train_here(changed, workdir, ["optim.learning_rate"])
    assert "changed config.optim.learning_rate: 0.01 -> 0.5" in capsys.readouterr().out


NO_EVALS = "--config.evals={}"
STEPS, EVERY = 60, 15
LONG = (f"--config.total_steps={STEPS}", f"--config.checkpoint.every={EVERY}", NO_EVALS)
LONG += ("--config.log_every=25",)

# The command, slow after some step, so that there is time to stop it there.
SLOW = """
import runpy, sys, time
from mmjax.workdir import batch_log

def add(self, step, batch, add=batch_log.BatchLog.add, after=int(sys.argv.pop(1))):
    time.sleep(0.2 * (step > after))
    add(self, step, batch)

batch_log.BatchLog.add = add
runpy.run_module("mmjax.train", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Two of its images are none, which is allowed."""
    root = tmp_path_factory.mktemp("many")
    write_folder(root, count=240)
    for i in range(2):
        (root / f"{i:03d}.png").write_bytes(b"not an image")
    return root


@pytest.fixture(scope="module")
def long_run(many, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("long")
    done = train(many, workdir, *LONG)
    assert done.returncode == 0, done.stderr
    return workdir


def test_signals_and_a_kill_lose_nothing_and_the_run_ends_bitwise_the_same(
    many, tmp_path, long_run
):
    """One run: ended by SIGTERM, resumed and ended by Ctrl-C, resumed and killed, resumed."""
    for count, number in enumerate((signal.SIGTERM, signal.SIGINT, signal.SIGKILL), start=1):
        at = count * EVERY
        command = ("-c", SLOW, at, *TRAIN[2:], f"--workdir={tmp_path}")
        process = commands.start(*command, *settings(many, *LONG))
        deadline = time.monotonic() + 120
        while not (tmp_path / "checkpoints" / str(at)).exists():
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.005)
        process.send_signal(number)
        out, error = process.communicate(timeout=120)
        assert count == 1 or "resumed at step" in out
        if number != signal.SIGKILL:
            assert process.returncode == 128 + number, error
            assert f"{preemption.NAMES[number]}: saved step" in out
    # What a kill in the middle of a save leaves behind.
    torn = tmp_path / "checkpoints" / f"{STEPS}.orbax-checkpoint-tmp"
    torn.mkdir(exist_ok=True)
    (torn / "half").write_bytes(b"\0" * 100)
    done = train(many, tmp_path, *LONG)
    assert done.returncode == 0, done.stderr
    assert f"resumed at step {at}" in done.stdout  # the newest complete
    # The same parameters in the end, and every step, if taken twice both times, the same batch.
    assert_same(state_of(tmp_path, STEPS), state_of(long_run, STEPS))
    seen, want = ((p / "batches.jsonl").read_text().splitlines() for p in (tmp_path, long_run))
    assert set(seen) == set(want) and len(want) == STEPS
    rows = jsonl.read(tmp_path / goodput.FILE)
    spent = goodput.account(rows)
    assert sum(spent.values()) == pytest.approx(rows[-1]["time"] - rows[0]["began"], rel=1e-6)
    assert sum("began" in row for row in rows) == 4
    lossy = ("useful", "startup", "compile", "checkpoint", "down")
    assert all(spent[cause] > 0 for cause in lossy), spent
    assert "in useful steps; " in done.stdout.splitlines()[-1]


def test_a_full_disk_loses_nothing_saved(many, tmp_path, long_run):
    workdir = tmp_path / "run"
    shutil.copytree(long_run, workdir)
    # Every file ends where a checkpoint's description, always of one size, is not yet whole.
    size = (workdir / "checkpoints" / str(STEPS) / "state" / "_METADATA").stat().st_size - 1
    longer = (*LONG, "--allow_change=total_steps,checkpoint.every", "--config.checkpoint.every=10")
    longer += (f"--config.total_steps={STEPS + 15}",)
    assert size > 2 * (workdir / "batches.jsonl").stat().st_size  # the log has room
    full = train(many, workdir, *longer, file_size=size)
    words = (f"Checkpoint {STEPS + 10}", "File too large", f"checkpoints/{STEPS}", "room")
    refused(full, *words)
    done = train(many, workdir, *longer)
    assert done.returncode == 0 and f"resumed at step {STEPS}" in done.stdout, done.stderr


def test_bad_input_is_one_sentence(pictures, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=str(empty)):
        train_here(config_of(empty), tmp_path / "a")
    with pytest.raises(ValueError, match="config.batch_size is 12.*8 or 16"):
        train_here(config_of(pictures, "--config.batch_size=12"), tmp_path / "b")
    with pytest.raises(ValueError, match="learning_rate"):
        train_here(config_of(pictures, "--config.optim.lerning_rate=1"), tmp_path / "c")
    with pytest.raises(ValueError, match=r"'image'.*\[16, 16, 3\]"):
        train_here(config_of(pictures, "--config.model.image.image_size=(32,32)"), tmp_path / "d")
    # What an evaluation lacks is said before the training, not after.
    wrong = ("all.source.root=nowhere", "all.transform=decode | tokenize(12)")
    for change, words in zip(wrong, ("no folder nowhere", "tokenize comes after choose_caption")):
        with pytest.raises(ValueError, match=f"config.evals.all.*{words}"):
            train_here(config_of(pictures, f"--config.evals.{change}"), tmp_path / "e")
        assert not (tmp_path / "e" / "batches.jsonl").exists()


def test_a_missing_column_and_corrupt_images(tmp_path, long_run):
    bad = (long_run / "bad_records.jsonl").read_text().splitlines()  # two are allowed
    assert len(bad) == 2 and all(json.loads(b)["kind"] == "unreadable_image" for b in bad)
    other = tmp_path / "data"
    write_folder(other)
    for i in range(3):
        (other / f"{i:03d}.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match="(?s)3 bad records of 24.*bad_records.jsonl"):
        train_here(config_of(other), tmp_path / "a")
    (other / "captions.jsonl").write_text('{"file_name": "005.png", "words": "a square"}\n')
    with pytest.raises(ValueError, match="caption"):
        train_here(config_of(other), tmp_path / "b")


def test_a_step_that_is_not_finite_names_the_tensor_and_keeps_the_checkpoint(pictures, tmp_path):
    done = train(pictures, tmp_path, "--config.optim.learning_rate=1e30", NO_EVALS)
    refused(done, "not finite", "Step", f"python -m mmjax.replay --workdir={tmp_path} --step=")
    assert "Traceback" not in done.stderr


def test_devices_of_one_cpu_take_one_step_at_a_time(pictures, tmp_path, monkeypatch):
    """Else XLA ends a run of some thousand steps: collectives wait for each other's threads."""
    waited = []
    monkeypatch.setattr(jax, "block_until_ready", waited.append)
    assert jax.local_device_count() == 8
    train_here(config_of(pictures, "--config.total_steps=2", NO_EVALS), tmp_path)
    steps = [scalars for scalars in waited if isinstance(scalars, dict)]  # not waits of the ledger
    assert len(steps) == 2 and all("loss" in scalars for scalars in steps)
