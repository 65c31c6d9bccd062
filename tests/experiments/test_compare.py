"""Runs compared by a hand-computed example."""

import json
import math
import sys

import pytest
from scipy import stats

from experiments import compare
from mmjax import config as configs


def write_run(folder, *, seed=0, rate=1e-3, top1=0.5, fingerprint="aa", step=10):
    config = configs.defaults()
    config.seed = seed
    config.optim = {"learning_rate": rate}
    folder.mkdir(parents=True)
    results = {"step": step, "evaluators": {"test": fingerprint}, "values": {"test/top1": top1}}
    manifest = {"config": json.loads(configs.to_json(config)), "results": results}
    (folder / "run.json").write_text(json.dumps(manifest))
    rows = [{"step": s, "train/loss": seed + 1 / s, "learning_rate": rate} for s in (1, 5, 10)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def study(tmp_path):
    for seed, (a, b) in enumerate([(0.10, 0.20), (0.12, 0.24), (0.17, 0.25)]):
        write_run(tmp_path / "study" / f"a{seed}", seed=seed, top1=a)
        write_run(tmp_path / "study" / f"b{seed}", seed=seed, rate=5e-3, top1=b)
    return tmp_path / "study"


def test_seeds_are_grouped_and_differences_paired(study):
    found = compare.compare(compare.group(compare.find_runs([study])))
    assert [one["title"] for one in found["groups"]] == ["a0", "b0"]
    assert [one["seeds"] for one in found["groups"]] == [[0, 1, 2]] * 2
    assert found["config"] == {"optim.learning_rate": [1e-3, 5e-3]}
    first, second = found["results"]["test/top1"]
    t = stats.t.ppf(0.975, 2)
    assert first == pytest.approx(
        {"mean": 0.13, "half": t * stats.tstd([0.10, 0.12, 0.17]) / math.sqrt(3), "n": 3}
    )
    # The differences are 0.10, 0.12 and 0.08.
    assert second["delta"] == pytest.approx(0.10)
    assert second["delta_half"] == pytest.approx(t * 0.02 / math.sqrt(3))
    assert found["not_comparable"] == []


def test_other_settings_of_an_evaluator_are_refused(tmp_path):
    folders = write_run(tmp_path / "a"), write_run(tmp_path / "b", rate=1.0, fingerprint="bb")
    with pytest.raises(ValueError, match=r"a and .*b were evaluated by 'test' .*aa and bb\), so"):
        compare.find_runs(folders)
    found = compare.compare(compare.group(compare.find_runs(folders, ["test"])))
    assert found["results"] == {} and len(found["groups"]) == 2
    with pytest.raises(ValueError, match="No run has an evaluator 'tset'; they have test"):
        compare.find_runs(folders, ["tset"])


def test_other_steps_are_marked(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", rate=1.0, step=20)
    found = compare.compare(compare.group(compare.find_runs([tmp_path / "a", tmp_path / "b"])))
    assert found["not_comparable"] == ["test"]
    assert "test/top1 (not comparable)" in compare.text(found)
    assert found["results"]["test/top1"][0] == {"mean": 0.5, "half": None, "n": 1}


def test_the_command_prints_and_writes_a_page(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare", str(study), f"--out={tmp_path / 'out'}"])
    compare.main()
    printed = capsys.readouterr().out
    assert "| optim.learning_rate | 0.001 | 0.005 |" in printed
    assert "| test/top1 | 0.13 ± 0.09 | 0.23 ± 0.066 (+0.1 ± 0.05) |" in printed
    page = (tmp_path / "out" / "compare.html").read_text()
    assert page.count("<svg") + page.count("data:image/svg") == 1  # the training loss
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["groups"][1]["steps"] == [10]


def test_wrong_input_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(sys, "argv", ["compare", str(tmp_path / "empty")])
    with pytest.raises(SystemExit) as left:
        compare.main()
    assert left.value.code == 2 and "There is no run in" in capsys.readouterr().err
    write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    with pytest.raises(ValueError, match="the same config and the same seed, 0"):
        compare.group(compare.find_runs([tmp_path / "a", tmp_path / "b"]))
