"""Spoken and written digits through the real loop: train, evaluate without a modality, replay."""

from pathlib import Path

import numpy as np
import pytest
from digits import drawn, mnist_wheel, write_speech

from mmjax import config as configs
from mmjax import pretrained, replay, train
from mmjax.data.open_source import open_source


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """The config of fusion_digits on a few made-up digits, and a tiny model."""
    monkeypatch.setenv("MMJAX_DATA_DIR", str(tmp_path / "cache"))
    write_speech(tmp_path)
    wheel = mnist_wheel(tmp_path / "mnist.whl", (drawn(40), drawn(20, 1), drawn(20, 2)))
    for name, split, root in (("fsdd", "theo", tmp_path), ("mnist_digits", "test", wheel)):
        open_source({"kind": "tfds", "name": name, "split": split, "root": str(root)})
    config = configs.load(str(Path(__file__).parent.parent / "configs/fusion_digits.py"))
    with config.unlocked(), config.ignore_type():
        config.batch_size, config.total_steps, config.optim.warmup_steps = 8, 2, 1
        config.data.train.second.split, config.data.train.length = "train", 20
        for evaluation in config.evals.values():
            evaluation.source.second.split, evaluation.source.length = "test", 9
        config.model.update(width=16, heads=2, mlp_dim=16, encoder_depth=1)
        config.model.fusion.update(depth=1, kind="bottleneck", modality_dropout=0.3)
    return config


def test_train_evaluate_without_a_modality_and_replay(digits, tmp_path, capsys):
    results = train.train(digits, tmp_path / "run")
    assert {f"{name}/top1" for name in ("both", "audio_only", "image_only")} <= set(results)
    assert all(np.isfinite(v) for v in results.values())
    page = (tmp_path / "run" / "report.html").read_text()
    assert "audio_only" in page
    trained = pretrained.load(tmp_path / "run")
    assert trained.class_names == tuple(open_source(digits.data.train).class_names)
    assert len(trained.class_names) == trained.config["num_classes"] == 10
    replay.replay(tmp_path / "run", 2, ())
    assert "all checksums agree" in capsys.readouterr().out
