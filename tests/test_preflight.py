"""Preflight, by its command where the process matters, else as a function."""

import collections
import shutil

import commands
import pytest
from runs import CONFIG
from tiny_clip import get_config, write_folder

from mmjax import config as configs
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
    config.loss.mask_duplicates = True  # the loss reads example_id
    with workdir_lock.held(workdir):
        preflight.preflight(configs.override(config, ["data.hold_out=0.2"]), workdir)
    out = capsys.readouterr().out
    words = ("ok  model:", "24 examples", "checkpoints: none", "first batch: image [8, 16, 16, 3]")
    for part in (*words, "gives contrastive", "evals.held_out_loss: loss, fits", "ok  all"):
        assert part in out
    assert not list(workdir.glob(".preflight*"))


def test_microbatches_are_checked_by_numbers(config, tmp_path, capsys):
    config.evals = {}
    with workdir_lock.held(tmp_path / "run"):
        found = configs.override(config, ["batch_size=16", "microbatches=2"])
        preflight.preflight(found, tmp_path / "run")
    assert "ok  microbatches: 2: no row depends on the others" in capsys.readouterr().out


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.transform=decode | nonsense(3)", "no transform 'nonsense'"),
        ("data.transform=decode | resize(16) | first_caption | tokenize(13)", "batch's 'text' is"),
        ("evals.all.kind=retreival", "nearest: 'retrieval'"),
        ("evals.al.captions_per_image=1", "config.evals.al has no kind.*Did you mean 'all'"),
        ("evals.all=None", "config.evals.all is None, not the settings of an evaluator"),
        ("evals.all.captions_per_image=1.5", "captions_per_image is 1.5: it must be of type int"),
        ("validation=('nope',)", "config.validation names 'nope'"),
        ("evals.all.kind=classification", "needs labels and its transform gives"),
        ("evals.all.kind=perplexity", "needs the output 'text_logits' and this model gives"),
        ("batch_size=1000000", "config.batch_size is 1,000,000 and .* has 24 training examples"),
        ("baselines=nowhere.json", "config.baselines is 'nowhere.json': there is no such file"),
        ("early_stopping.metric=all/recall@1", "early_stopping.metric is 'all/recall@1', and"),
        ("optim.learning_rat=1", "learning_rat is not a setting of Settings. Did you mean"),
        ("loss_weights.contrastve=1.0", "config.loss_weights names \\['contrastve'\\]"),
        ("model.dtype=float8", "config.model.dtype is 'float8'; use one of float32, bfloat16"),
    ],
)
def test_what_would_fail_late_is_refused(config, tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        preflight.preflight(configs.override(config, [change]), tmp_path / "run")


def test_the_command_refuses_with_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    done = commands.run(
        *("-m", "mmjax.preflight", f"--config={CONFIG}"),
        f"--workdir={tmp_path / 'file' / 'run'}",
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: Cannot write in the folder")
