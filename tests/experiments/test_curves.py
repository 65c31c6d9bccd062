"""Curves of a grid's runs: each run at its place, and only those that are done."""

import json

import pytest

from experiments import curves
from experiments.ablate import load_grid, make_runs
from mmjax.config import to_json

GRID = """
def curve(title):
    line, x = title.split(" at ")
    return line, float(x)

def get_grid():
    arms = {
        f"{name} at {x}": {"optim.learning_rate": x, "data.transform": name}
        for name in ("a", "b") for x in (1.0, 2.0)
    }
    return {
        "config": "configs/kwt_fsdd.py", "arms": arms, "baseline": "a at 1.0", "seeds": [0, 1],
        "metrics": {"test/top1": "accuracy"},
    }
"""


def test_each_run_is_at_its_place_and_what_is_not_done_is_left_out(tmp_path, capsys, monkeypatch):
    grid = tmp_path / "grid.py"
    grid.write_text(GRID)
    for number, run in enumerate(make_runs(load_grid(str(grid)), tmp_path)):
        if number == 7:
            break  # the last run is not done
        run.workdir.mkdir()
        config = json.loads(to_json(run.config))
        values = {"test/top1": 0.1 * number}
        text = json.dumps({"config": config, "results": {"values": values}})
        (run.workdir / "run.json").write_text(text)
    found = curves.collect(str(grid), tmp_path, "test/top1")
    want = {"a": {1.0: [0.0, 0.4], 2.0: [0.1, 0.5]}, "b": {1.0: [0.2, 0.6], 2.0: [0.3]}}
    for line, points in want.items():
        for x, values in points.items():
            assert found[line][x] == pytest.approx(values)
    more = tmp_path / "more.json"
    more.write_text(json.dumps({"c": {"2": [0.9]}}))
    plot = tmp_path / "out" / "curves.png"
    args = ["curves", f"--grid={grid}", f"--out={tmp_path}", "--metric=test/top1"]
    monkeypatch.setattr("sys.argv", [*args, f"--more={more}", f"--plot={plot}", "--log"])
    assert curves.main() == 0 and plot.stat().st_size > 1000
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| | 1 | 2 |" and lines[-1] == "| c | – | 90.0 |"
    assert lines[2].startswith("| a | 20.0 ± ") and lines[3].endswith("| 30.0 |")


def test_a_grid_without_places_and_one_without_runs_are_refused(tmp_path, monkeypatch):
    grid = tmp_path / "grid.py"
    grid.write_text(GRID.replace("def curve", "def other"))
    with pytest.raises(ValueError, match=r"defines no function curve\(title\), which gives"):
        curves.collect(str(grid), tmp_path, "test/top1")
    grid.write_text(GRID)
    args = ["curves", f"--grid={grid}", f"--out={tmp_path}", "--metric=x/y", "--plot=p.png"]
    monkeypatch.setattr("sys.argv", args)
    with pytest.raises(ValueError, match="No run of .* is done: start experiments.ablate"):
        curves.main()
    monkeypatch.setattr("sys.argv", [*args, f"--more={tmp_path / 'more.json'}"])
    with pytest.raises(ValueError, match="There is no file of lines '.*more.json'"):
        curves.main()
    (tmp_path / "more.json").write_text("[0.5]")
    with pytest.raises(ValueError, match="more.json has no lines"):
        curves.main()
