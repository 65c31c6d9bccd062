"""Records of a run, read back by other readers than ours where there are any."""

import io
import json
import math
import os
import subprocess
import sys

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from mmjax.workdir import metrics


def lines(workdir):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def writer(workdir, **options):
    return metrics.MetricWriter(workdir, **{"tensorboard": False, "console": False, **options})


def events(folder):
    """(step, name, value) as another reader of the event-file format finds them."""
    from tensorboardX.proto import event_pb2

    found, purges = [], []
    for path in sorted(folder.iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):  # records: length, its crc, the event, its crc
            size = int.from_bytes(content[at : at + 8], "little")
            event = event_pb2.Event.FromString(content[at + 12 : at + 12 + size])
            at += 16 + size
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            if event.session_log.status == 1:  # START: a reader drops what is later
                purges.append(event.step)
    return found, purges


def test_jsonl_holds_what_was_written(tmp_path):
    w = writer(tmp_path / "new")
    w.write(1, {"train/loss": jnp.float32(0.5), "lr": 0.1, "n": np.int64(3)})
    w.write(2, {"train/loss": math.nan, "up": math.inf, "down": -math.inf})
    assert lines(tmp_path / "new") == [
        {"step": 1, "train/loss": 0.5, "lr": 0.1, "n": 3.0},
        {"step": 2, "train/loss": "NaN", "up": "Infinity", "down": "-Infinity"},
    ]
    rows = metrics.read_metrics(tmp_path / "new")
    assert rows[0] == {"step": 1, "train/loss": 0.5, "lr": 0.1, "n": 3.0}
    assert math.isnan(rows[1]["train/loss"]) and rows[1]["down"] == -math.inf


def test_tensorboard_holds_what_was_written(tmp_path):
    w = writer(tmp_path, tensorboard=True)
    w.write(5, {"train/loss": 0.5, "bad": math.nan})
    w.close()
    assert events(tmp_path / "tensorboard")[0] == [(5, "train/loss", 0.5)]


def test_rewind_forgets_later_steps_everywhere(tmp_path):
    w = writer(tmp_path, tensorboard=True)
    for step in (10, 20, 30):
        w.write(step, {"loss": float(step)})
    w.close()
    w = writer(tmp_path, tensorboard=True)
    w.rewind(20)
    assert [row["step"] for row in lines(tmp_path)] == [10, 20]
    w.write(21, {"loss": 21.0})
    w.close()
    assert [row["step"] for row in lines(tmp_path)] == [10, 20, 21]
    assert events(tmp_path / "tensorboard")[1] == [21]


@pytest.mark.parametrize("kept_bytes", [1, 10, 29])
def test_a_torn_last_line_is_cut(tmp_path, kept_bytes):
    w = writer(tmp_path)
    w.write(1, {"loss": 1.0})
    w.write(2, {"loss": 2.0})
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    path.write_bytes(whole[: first + min(kept_bytes, len(whole) - first - 1)])
    assert [row["step"] for row in metrics.read_metrics(tmp_path)] == [1]
    w = writer(tmp_path)
    w.write(2, {"loss": 2.5})
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.5}]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2"):
        metrics.read_metrics(tmp_path)


def test_other_processes_write_nothing(tmp_path):
    w = writer(tmp_path / "run", tensorboard=True, process_index=1)
    w.write(1, {"loss": 1.0})
    w.rewind(0)
    w.close()
    assert not (tmp_path / "run").exists()
    assert metrics.read_metrics(tmp_path / "run") == []


def test_a_full_disk_is_one_sentence(tmp_path):
    w = writer(tmp_path)
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(ValueError, match="Cannot write .*No space left on device"):
        w.write(1, {"loss": 1.0})


def test_console_prints_a_line(tmp_path, capsys):
    writer(tmp_path, console=True).write(7, {"val/recall": 0.51239})
    assert capsys.readouterr().out == "[7] val/recall 0.5124\n"


def test_tensorboard_is_imported_late():
    code = "import sys, mmjax.workdir.metrics; print('tensorboardX' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_window_means_each_name_over_its_steps():
    window = metrics.ScalarWindow()
    window.add({"loss": jnp.float32(1.0), "finite": jnp.bool_(True)})
    window.add({"loss": jnp.bfloat16(3.0), "finite": jnp.bool_(False), "rare": 5})
    assert window.mean() == {"loss": 2.0, "finite": 0.5, "rare": 5.0}
    assert window.mean() == {}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves: clock[0] is the time in seconds."""
    now = [100.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    return now


def test_progress_line_shows_rates_without_the_first_step(clock):
    """Step 1 takes a minute (compilation); then 2 s a step, a quarter of it spent waiting."""
    stream = io.StringIO()
    progress = metrics.ProgressLine(100, 32, stream=stream)
    clock[0] += 60
    progress.update(1, {"train/loss": jnp.float32(2.5), "logit_scale": 14.25}, 50.0)
    for step in range(2, 7):
        clock[0] += 2
        progress.update(step, {"loss": 1.0 / step}, 0.5)
    text = progress.line()
    for words in ("6.0 %", "step 6/100", "logit_scale 14.25", "16 examples/s", "waiting 25 %"):
        assert words in text
    assert text.endswith("ETA 3:08")  # 94 steps of 2 s
    first = stream.getvalue().splitlines()[0]
    assert "loss 2.5" in first and "examples/s" not in first


def test_progress_line_off_a_terminal_every_ten_seconds_or_five_percent(clock):
    stream = io.StringIO()
    progress = metrics.ProgressLine(1000, 1, stream=stream)
    for step in range(1, 201):  # 0.1 s a step: 5 % is 50 steps, 5 s
        clock[0] += 0.1
        progress.update(step, {}, 0.0)
    steps = [line.split()[3] for line in stream.getvalue().splitlines()]
    assert steps == ["50/1000", "100/1000", "150/1000", "200/1000"]
    for step in range(201, 206):  # 6 s a step: every second one
        clock[0] += 6
        progress.update(step, {}, 0.0)
    progress.close()
    steps = [line.split()[3] for line in stream.getvalue().splitlines()][4:]
    assert steps == ["202/1000", "204/1000", "205/1000"]


def test_progress_line_on_a_terminal_rewrites_one_line(clock):
    stream = Terminal()
    progress = metrics.ProgressLine(4, 8, start_step=2, stream=stream)
    for step in (3, 4):
        clock[0] += 1
        progress.update(step, {"loss": 1.0}, 0.0)
    progress.print("saved")
    progress.close()
    shown = stream.getvalue()
    assert shown.count("\r") >= 2 and "saved\n" in shown
    assert shown.endswith("8 examples/s  waiting 0 %  ETA 0:00\n")
    assert not any(
        "saved" in line and "step" in line for line in shown.replace("\r", "\n").split("\n")
    )


def test_restart_leaves_an_evaluation_out_of_the_rate(clock):
    progress = metrics.ProgressLine(100, 10, stream=io.StringIO())
    for step in range(1, 4):
        clock[0] += 1
        progress.update(step, {}, 0.0)
    clock[0] += 15
    progress.restart()
    for step in range(4, 7):
        clock[0] += 1
        progress.update(step, {}, 0.0)
    assert "10 examples/s" in progress.line()


class Unfinished:
    """A device scalar that is in the making until `ready`: reading it before would wait."""

    ready = False

    def is_ready(self):
        return self.ready

    def __float__(self):
        assert self.ready, "waited for the device"
        return 0.5


def test_rates_are_of_steps_finished_and_not_of_steps_started(clock, monkeypatch):
    """The loop starts ten steps at once and waits for them: 3 s a step, a sixth of it for data."""
    monkeypatch.setattr(metrics.jax, "Array", Unfinished)
    progress = metrics.ProgressLine(1000, 16, stream=io.StringIO())
    for burst in range(3):
        started = [Unfinished() for _ in range(10)]
        for i, scalar in enumerate(started):
            clock[0] += 0.01
            progress.update(10 * burst + i + 1, {"loss": scalar}, 0.5)
        if burst > 1:
            assert "step 20/1000  loss 0.5  5 examples/s  waiting 17 %" in progress.line()
        clock[0] += 29.9
        for scalar in started:
            scalar.ready = True
        assert progress.examples_per_second == pytest.approx(16 / 3 if burst else 0)
        if burst:
            assert progress.data_wait_share == pytest.approx(1 / 6)
    assert progress.line().endswith(f"ETA {970 * 3 // 60}:30")


def test_progress_line_never_waits_for_the_device(clock, monkeypatch):
    monkeypatch.setattr(metrics.jax, "Array", Unfinished)
    progress = metrics.ProgressLine(10, 1, stream=Terminal())
    clock[0] += 1
    progress.update(1, {"loss": Unfinished()}, 0.0)
    assert "step 0/10" in progress.line() and "loss" not in progress.line()


def test_table_is_aligned():
    stream = io.StringIO()
    rows = [{"metric": "recall@1", "value": 0.51234}, {"metric": "rank", "value": 12, "n": 3}]
    metrics.print_table(rows, "Results", stream)
    assert stream.getvalue().splitlines() == [
        "Results",
        "metric     value  n",
        "────────  ──────  ─",
        "recall@1  0.5123",
        "rank          12  3",
    ]


def test_manifest_keeps_sections_and_says_what_ran(tmp_path):
    cfg = ml_collections.ConfigDict({"sizes": (1, 2), "limit": math.inf, "none": None})
    metrics.write_manifest(tmp_path, config=cfg, results={"loss": np.float32(0.5)})
    metrics.write_manifest(tmp_path, results={"recall": jnp.float32(0.25)})
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["config"] == {"sizes": [1, 2], "limit": "Infinity", "none": None}
    assert run["results"] == {"recall": 0.25}
    assert run["devices"] == {"kind": "cpu", "count": 8}
    assert run["packages"]["numpy"] == np.__version__
    assert run["python"] == sys.version.split()[0]
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_failed_manifest_leaves_the_old_one(tmp_path, monkeypatch):
    metrics.write_manifest(tmp_path, results={"a": 1})
    before = (tmp_path / "run.json").read_text()

    def fail(_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ValueError, match=r"Cannot write .*run.json: No space left"):
        metrics.write_manifest(tmp_path, results={"a": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]
    assert (tmp_path / "run.json").read_text() == before


def test_a_manifest_that_is_not_json_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match="run.json is not JSON"):
        metrics.write_manifest(tmp_path)


def test_git_revision_inside_and_outside_a_checkout(tmp_path, monkeypatch):
    def git(*args):
        done = subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    module = tmp_path / "metrics.py"
    module.write_text("x = 1\n")
    monkeypatch.setattr(metrics, "__file__", str(module))
    assert metrics.git_revision() is None
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "x")
    assert metrics.git_revision() is None  # not tracked: another project's checkout
    git("add", "metrics.py")
    git("commit", "-q", "-m", "x")
    (tmp_path / "notes.txt").write_text("untracked")
    assert metrics.git_revision() == {"revision": git("rev-parse", "HEAD"), "dirty": False}
    module.write_text("x = 2\n")
    assert metrics.git_revision()["dirty"] is True
