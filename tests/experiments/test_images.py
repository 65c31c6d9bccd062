"""The study of images from text: its runs are trainable configs of equal budgets, and its table."""

import json
import types

import pytest

from experiments.images import stages, study
from experiments.images.scores import table
from mmjax import config as configs
from mmjax.models.systems import make_system


def test_systems_have_equal_budgets_and_their_runs_are_configs(tmp_path):
    for runs in stages.SYSTEMS.values():
        assert sum(runs.values()) == pytest.approx(1)
        seconds = sum(stages.steps_of(run, 30) * stages.SECONDS[run] for run in runs)
        assert seconds == pytest.approx(30 * 60, rel=0.01)
        for run in runs:
            changes = [*stages.PLAIN, *stages.changes(run, tmp_path)]
            config = configs.load(stages.CONFIGS[run], changes)
            assert not config.evals
            system = make_system(config)
            if run in ("glide", "vq", "dalle"):
                assert system.spec["image"].shape == (1, 32, 32, 3)
            if run == "decoder":  # which reads what its CLIP does
                assert system.spec["image"].shape == (1, 48, 48, 3)
                assert system.model.shape == (32, 32, 3)


def test_seeds_are_numbers(monkeypatch, tmp_path):
    given = types.SimpleNamespace(out=str(tmp_path), seeds="0,x", minutes=1.0, count=4)
    monkeypatch.setattr(study, "ARGS", given, raising=False)
    with pytest.raises(ValueError, match="--seeds is '0,x': give whole numbers"):
        study.main()


def test_a_finished_run_is_not_started_again(tmp_path, monkeypatch):
    monkeypatch.setattr(stages.subprocess, "Popen", lambda *args, **_: 1 / 0)
    steps = stages.steps_of("vq", 1)
    (tmp_path / "vq" / "checkpoints" / str(steps)).mkdir(parents=True)
    stages.train("vq", tmp_path, 0, 1)
    with pytest.raises(ZeroDivisionError):
        stages.train("vq", tmp_path, 0, 2)


def test_the_table_has_a_row_for_each_setting_with_its_spread(tmp_path):
    for seed in (0, 1):
        folder = tmp_path / f"seed={seed}" / "scores"
        folder.mkdir(parents=True)
        (folder / "unseen, b.json").write_text(json.dumps({"images": 9, "precision": 0.5 + seed}))
        if not seed:
            (folder / "unseen, a.json").write_text(json.dumps({"images": 9, "precision": 0.25}))
    lines = table(tmp_path).splitlines()
    assert lines[2:] == [
        "| unseen, a | 1 | 9.000 | 0.250 |",
        "| unseen, b | 2 | 9.000 ± 0.000 | 1.000 ± 0.707 |",
    ]
