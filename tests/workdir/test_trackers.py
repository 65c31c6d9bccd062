"""What trackers get: by one made here, and by the real ones where they are installed."""

import importlib.util
import json
import math
import sqlite3
import subprocess
import sys
import types

import pytest
from runs import ROOT

from mmjax.workdir import trackers
from mmjax.workdir.manifest import read_manifest
from mmjax.workdir.metrics import MetricWriter

CONFIG = {"batch_size": 8, "model": {"name": "clip"}}


def settings(kind="fake", project="p"):
    return {"kind": kind, "project": project}


@pytest.fixture
def fake(monkeypatch):
    """A tracker whose runs are lists: `runs` are the opened ones, in order, as (id, lines)."""
    runs, broken = [], []

    def opened(project, run_id, workdir, config):
        lines = []
        runs.append((run_id, lines))

        def log(step, values):
            if broken:
                raise ConnectionError("the server\nis gone")
            lines.append((step, dict(values)))

        return trackers._Open(log, lambda: lines.append("end"), f"tracked as {run_id}")

    monkeypatch.setitem(trackers.KINDS, "fake", opened)
    return types.SimpleNamespace(runs=runs, broken=broken)


def writer(workdir, **options):
    tracker = trackers.Tracker(settings(), workdir, CONFIG)
    return MetricWriter(workdir, tensorboard=False, tracker=tracker, **options)


def test_a_run_goes_on_as_the_same_run_and_a_kill_leaves_no_hole(fake, tmp_path, capsys):
    first = writer(tmp_path)
    first.rewind(0)
    assert not fake.runs  # opened at the first write
    for step in (1, 2):
        first.write(step, {"loss": float(step)})
    first.write(2, {"eval": math.nan})
    first.close()
    second = writer(tmp_path)
    second.rewind(2)
    second.write(2, {"final": 1.0})  # of the step that was sent last
    second.write(3, {"loss": 3.0})
    second.write(4, {"loss": 4.0})  # perhaps lost: it is killed here
    third = writer(tmp_path)
    third.rewind(3)
    third.write(4, {"loss": 4.0})
    third.close()
    ids, lines = zip(*fake.runs)
    assert len(set(ids)) == 1 and read_manifest(tmp_path)["tracker"]["id"] == ids[0]
    assert lines[0][:2] == [(1, {"loss": 1.0}), (2, {"loss": 2.0})]
    assert math.isnan(lines[0][2][1]["eval"]) and lines[0][3:] == ["end"]
    assert lines[1] == [(2, {"final": 1.0}), (3, {"loss": 3.0}), (4, {"loss": 4.0})]
    assert lines[2] == [(3, {"loss": 3.0}), (4, {"loss": 4.0}), "end"]
    assert capsys.readouterr().out.count(f"tracked as {ids[0]}\n") == 3
    other = trackers.Tracker(settings(project="another"), tmp_path, CONFIG)
    other.write(4, {"loss": 4.0})
    assert fake.runs[-1][0] != ids[0]
    assert fake.runs[-1][1][0][0] == 1  # a new run there gets all


def test_a_tracker_that_fails_ends_no_run(fake, tmp_path, capsys):
    found = writer(tmp_path)
    found.write(1, {"loss": 1.0})
    fake.broken.append(True)
    for step in (2, 3):
        found.write(step, {"loss": 1.0})
    found.close()
    said = capsys.readouterr().out
    assert said.count("warning: fake failed (the server) and gets no more metrics") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    assert fake.runs[0][1] == [(1, {"loss": 1.0})]


def test_other_processes_track_nothing(fake, tmp_path):
    found = writer(tmp_path, process_index=1)
    found.write(1, {"loss": 1.0})
    found.close()
    assert not fake.runs


def test_an_unknown_tracker_and_a_missing_package_are_one_sentence(monkeypatch):
    trackers.check(settings(""))
    with pytest.raises(ValueError, match="config.track.kind is 'wanbd'. Did you mean 'wandb'"):
        trackers.check(settings("wanbd"))
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"'trackio'.* not installed: pip install 'mmjax\[track\]"):
        trackers.check(settings("trackio"))


SEND = """
import sys
from mmjax.workdir import trackers
from mmjax.workdir.metrics import MetricWriter

kind, workdir, *steps = sys.argv[1:]
tracker = trackers.Tracker({"kind": kind, "project": "p"}, workdir, {"batch_size": 8})
writer = MetricWriter(workdir, tensorboard=False, tracker=tracker)
for step in map(int, steps):
    writer.write(step, {"train/loss": step / 2, "eval/recall@1": float("nan")})
writer.close()
"""


def send(kind, workdir, *steps, home):
    """Write these steps in a process of its own, without a login; what it printed."""
    if importlib.util.find_spec(kind) is None:
        pytest.skip(f"{kind} is not installed: pip install -e '.[track]'")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONPATH": str(ROOT)}
    environment |= {"JAX_PLATFORMS": "cpu", "TRACKIO_DIR": str(home / "trackio")}
    command = [sys.executable, "-c", SEND, kind, str(workdir), *map(str, steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=home)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wandb_records(path):
    """The records of an offline file, which has the format of LevelDB's log."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = path.read_bytes(), 7, b""  # after wandb's own header
    while at + 7 <= len(data):
        left = 32768 - at % 32768  # of the block
        if left < 7:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part = data[at + 7 : at + 7 + size]
        whole = part if kind in (1, 2) else whole + part  # full or first
        at += 7 + size
        if kind in (1, 4):  # full or last
            yield wandb_internal_pb2.Record.FromString(whole)


def test_wandb_without_a_login_is_offline(tmp_path):
    workdir = tmp_path / "a"
    said = send("wandb", workdir, 1, 5, home=tmp_path)
    run_id = read_manifest(workdir)["tracker"]["id"]
    assert f"run {run_id} of project 'p', offline, as there is no login (`wandb login`" in said
    send("wandb", workdir, 3, 9, home=tmp_path)  # after a resume from step 2
    lines, runs = [], []
    for path in sorted(
        workdir.glob("wandb/offline-run-*/*.wandb"), key=lambda p: p.stat().st_mtime
    ):
        for record in wandb_records(path):
            if record.HasField("run"):
                runs.append((record.run.run_id, record.run.project, record.run.display_name))
                config = {x.key: json.loads(x.value_json) for x in record.run.config.update}
                assert config["batch_size"] == 8
            if record.HasField("history"):
                items = record.history.item
                row = {x.key or x.nested_key[0]: json.loads(x.value_json) for x in items}
                lines.append((row["step"], row["train/loss"]))
    assert set(runs) == {(run_id, "p", "a")} and len(runs) == 2
    assert lines == [(1, 0.5), (5, 2.5), (3, 1.5), (9, 4.5)]


def test_trackio_needs_no_network(tmp_path):
    workdir = tmp_path / "a"
    said = send("trackio", workdir, 1, 5, home=tmp_path)
    name = f"a-{read_manifest(workdir)['tracker']['id']}"
    assert said == (
        f"tracked by trackio, run {name} of project 'p', on this machine: "
        "`trackio show --project p` shows it\n"
    )
    send("trackio", workdir, 3, 9, home=tmp_path)
    (file,) = (tmp_path / "trackio").glob("*.db")
    base = sqlite3.connect(file)
    rows = base.execute(
        "SELECT run_id, run_name, step, metrics FROM metrics ORDER BY id"
    ).fetchall()
    assert len({row[:2] for row in rows}) == 1 and rows[0][1] == name
    assert [(step, json.loads(values)["train/loss"]) for *_, step, values in rows] == [
        (1, 0.5),
        (5, 2.5),
        (3, 1.5),
        (9, 4.5),
    ]
    ((config,),) = base.execute("SELECT config FROM configs").fetchall()
    assert json.loads(config)["batch_size"] == 8
