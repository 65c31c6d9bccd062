"""Preflight, by its command where the process matters, else as a function."""

import collections
import shutil

import commands
import pytest
from runs import CONFIG
from tiny_clip import get_config, write_folder

from mmjax import preflight
from mmjax.workdir import lock as workdir_lock


@pytest.fixture
def config(tmp_path):
    config = get_config()
    root = str(tmp_path / "pictures")
    write_folder(tmp_path / "pictures")
    config.data.train.root = root
    for evaluation in config.evals.values():
        evaluation.source.root = root
    return config


def test_all_is_well_and_nothing_is_left_behind(config, tmp_path, capsys):
    workdir = tmp_path / "run"
    with workdir_lock.held(workdir):
        preflight.preflight(config, workdir)
    out = capsys.readouterr().out
    for words in ("ok  model:", "24 examples", "checkpoints: none", "ok  all"):
        assert words in out
    assert not list(workdir.glob(".preflight*"))


def test_the_data_are_missing(config, tmp_path):
    (tmp_path / "run").mkdir()
    config.data.train.root = str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="nowhere"):
        preflight.preflight(config, tmp_path / "run")


def test_the_mesh_does_not_divide_the_batch(config, tmp_path):
    config.batch_size = 12
    with pytest.raises(ValueError, match="config.batch_size is 12"):
        preflight.preflight(config, tmp_path)


def test_a_full_disk(config, tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6, 1000))
    with pytest.raises(ValueError, match="0.0 GB free and 3 checkpoints"):
        preflight.preflight(config, tmp_path)


def test_the_command_refuses_with_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    done = commands.run(
        *("-m", "mmjax.preflight", f"--config={CONFIG}"),
        f"--workdir={tmp_path / 'file' / 'run'}",
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: Cannot write in the folder")
