"""Real commands on changing machines: other meshes, damaged checkpoints, and replays."""

import json
import re
import shutil
from pathlib import Path

import commands
import jax
import numpy as np
import pytest
from PIL import Image
from runs import CONFIG as TINY
from runs import flip_bits, state_of, train_here
from tiny_clip import write_folder

from mmjax import config as configs
from mmjax import replay
from mmjax.workdir import batch_log

STEPS = 6
CONFIG = """
import sys

sys.path.insert(0, {here!r})
from tiny_clip import get_config as tiny


def get_config():
    config = tiny()
    config.name = "resume"
    config.total_steps, config.checkpoint.every, config.checkpoint.keep = {steps}, 1, 10
    config.data.train.root = {images!r}
    config.evals = {{}}
    # A constant rate does not know the end; a large eps does not amplify what is only rounding.
    config.optim = {{"name": "adamw", "learning_rate": 1e-2, "schedule": "constant", "eps": 1e-2}}
    return config
"""
MESHES = {
    8: "{'data': 2, 'fsdp': 2, 'tensor': 2}",
    4: "{'data': 1, 'fsdp': 2, 'tensor': 2}",
    1: "{'data': 1, 'fsdp': 1, 'tensor': 1}",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images and a config, and the run that nothing has disturbed, on 8 devices."""
    place = tmp_path_factory.mktemp("resume")
    write_folder(place / "images")
    (place / "config.py").write_text(
        CONFIG.format(here=str(TINY.parent), images=str(place / "images"), steps=STEPS)
    )
    workdir = place / "undisturbed"

    def add(self, step, batch, add=batch_log.BatchLog.add):
        """Keeps what the devices are given."""
        np.savez(workdir / f"seen-{step}", **jax.device_get(batch))
        add(self, step, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_log.BatchLog, "add", add)
        train_here(config_of(place), workdir)
    return place


def config_of(place):
    return configs.load(str(place / "config.py"), [f"--config.mesh={MESHES[8]}"])


def train(place, name, devices, *more):
    flags = [f"--config={place / 'config.py'}", f"--workdir={place / name}"]
    flags += [f"--config.mesh={MESHES[devices]}", *more]
    return commands.run("-m", "mmjax.train", *flags, devices=devices)


def lines(place, name):
    return (place / name / "batches.jsonl").read_text().splitlines(keepends=True)


def test_a_run_moves_over_meshes_and_past_damage(place, capsys):
    """Begun on 8 devices, gone on with 4 and with 1, its newest checkpoint damaged, again on 8."""
    moved, checkpoints = place / "moved", place / "moved" / "checkpoints"
    shutil.copytree(place / "undisturbed", moved)
    for step in range(3, STEPS + 1):  # as if killed after step 2
        shutil.rmtree(checkpoints / str(step))
    (moved / "batches.jsonl").write_text("".join(lines(place, "undisturbed")[:2]))

    for at, devices, until in ((2, 4, 3), (3, 1, 5)):
        shorter = (f"--config.total_steps={until}", "--allow_change=total_steps")
        done = train(place, "moved", devices, *shorter)
        assert done.returncode == 0, done.stderr
        assert f"resumed at step {at}" in done.stdout and "changed config.mesh" in done.stdout
    flip_bits(checkpoints / "5")
    capsys.readouterr()
    train_here(config_of(place), moved, ["total_steps"])
    said = capsys.readouterr().out
    (warning,) = [line for line in said.splitlines() if line.startswith("warning:")]
    for words in ("checkpoints/5 is damaged (", "renamed to 5.damaged", "from step 4"):
        assert words in warning
    assert "resumed at step 4" in said and (checkpoints / "5.damaged").is_dir()
    assert json.loads((checkpoints / "4" / "run" / "metadata").read_text())["examples"] == 24

    same = lines(place, "undisturbed")
    assert lines(place, "moved") == same[:5] + same[4:]  # the fifth was taken twice
    assert [json.loads(line)["step"] for line in same] == list(range(1, STEPS + 1))
    want, got = (state_of(place / name, STEPS) for name in ("undisturbed", "moved"))
    assert want.keys() == got.keys()
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=1e-5, err_msg=name)
    start = state_of(place / "undisturbed", 1)
    assert any(np.abs(start[name] - want[name]).max() > 1e-3 for name in want if "params" in name)

    # and where none is whole, the start says so and leaves all as it is
    whole = [p for p in checkpoints.iterdir() if p.name.isdigit()]
    for path in whole:
        flip_bits(path)
    before = sorted(p.name for p in checkpoints.iterdir())
    with pytest.raises(ValueError, match="(?s)No checkpoint in.*can be used.*none was changed"):
        train_here(config_of(place), moved)
    assert sorted(p.name for p in checkpoints.iterdir()) == before


def test_replay_makes_the_batch_that_training_saw(place):
    """On one device, of a run on eight: every array is bit for bit what the devices got."""
    at = 4
    workdir = place / "undisturbed"
    done = commands.run("-m", "mmjax.replay", f"--workdir={workdir}", f"--step={at}")
    assert done.returncode == 0, done.stderr
    assert "the exact batch that was trained on" in done.stdout
    assert "checkpoint 3, those that the step began with" in done.stdout
    made = np.load(workdir / "replay" / str(at) / "batch.npz")
    seen = np.load(workdir / f"seen-{at}.npz")
    assert set(made) == set(seen)
    for name in seen:
        np.testing.assert_array_equal(made[name], seen[name], err_msg=name)
    assert not np.array_equal(made["image"], np.load(workdir / f"seen-{at - 1}.npz")["image"])

    table = re.findall(r"^ *([\d.]+) +(\d) +(\d+) +(\S+)  (a .*)$", done.stdout, re.M)
    losses = [float(loss) for loss, *_ in table]
    assert len(table) == 8 and losses == sorted(losses, reverse=True)
    for _, row, example_id, key, caption in table:
        assert int(example_id) == seen["example_id"][int(row)]
        assert key == f"{int(example_id):03d}.png"
        colour = ("red", "green", "blue", "black")[int(example_id) % 4]
        assert caption.startswith(f"a {colour} square")
    page = (workdir / "replay" / str(at) / "examples.html").read_text()
    assert page.count("<img") == 8 and "http" not in page


def test_replay_says_what_has_changed_since(place):
    workdir = place / "undisturbed"
    first = int(np.load(workdir / "seen-1.npz")["example_id"][0])
    path = place / "images" / f"{first:03d}.png"
    whole = path.read_bytes()
    picture = np.asarray(Image.open(path)).copy()
    picture[8, 8] ^= 1
    Image.fromarray(picture).save(path)
    try:
        replay.replay(workdir, 1)
    finally:
        path.write_bytes(whole)
    page = (workdir / "replay" / "1" / "examples.html").read_text()
    assert "NOT the batch that was trained on: image differ (the same examples" in page
    assert "the start of the run, those that the step began with" in page


def test_other_data_than_the_checkpoint_was_trained_on_are_refused_by_name(place, capsys):
    workdir, path = place / "undisturbed", place / "images" / "007.png"
    manifest, whole = json.loads((workdir / "data.json").read_text()), path.read_bytes()
    saved = json.loads((workdir / "checkpoints" / str(STEPS) / "run" / "metadata").read_text())
    (source,) = manifest["sources"].values()
    assert source["files"] == 25 and source["digest"] == saved["data"]["sources"][""]["digest"]
    assert manifest["tokenizer"] == saved["data"]["tokenizer"] is not None
    Image.new("RGB", (16, 16)).save(path)
    try:
        with pytest.raises(ValueError, match="007.png.*--allow_change=data.train"):
            train_here(config_of(place), workdir)
        path.unlink()
        with pytest.raises(ValueError, match=r"23 examples and had 24 .*missing \(007.png\)"):
            train_here(config_of(place), workdir)
    finally:
        path.write_bytes(whole)
    assert json.loads((workdir / "data.json").read_text()) == manifest


def test_replay_refuses_what_is_not_there(place):
    with pytest.raises(ValueError, match="--step is 0: the first step is 1"):
        replay.replay(place / "undisturbed", 0)
    with pytest.raises(ValueError, match=r"no run in .*images': it has no run.json"):
        replay.replay(Path(place / "images"), 1)
