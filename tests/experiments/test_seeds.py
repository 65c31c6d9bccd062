"""The table of seeds, from run.json files written by hand."""

import json

import pytest

from experiments.seeds import table


def run(root, name, step=5, **values):
    (root / name).mkdir()
    results = {"step": step, "values": values} if values else None
    (root / name / "run.json").write_text(json.dumps({"results": results}))
    return root / name


def test_mean_and_spread_of_each_set(tmp_path):
    sets = {
        "mine": [
            run(tmp_path, str(i), **{"a/x": x, "a/b/x": 7.0}) for i, x in enumerate((1, 2, 6))
        ],
        "other": [run(tmp_path, "one", **{"a/x": 0.5, "a/b/x": 0.25})],
    }
    assert table(["a", "a/b"], ["x"], sets).splitlines() == [
        "| | runs | x |",
        "|---|---|---|",
        "| a, mine | 3 | 3.000 ± 2.646 |",  # the root of (4 + 1 + 9) / 2
        "| a, other | 1 | 0.500 |",
        "| a/b, mine | 3 | 7.000 ± 0.000 |",
        "| a/b, other | 1 | 0.250 |",
    ]


def test_what_cannot_be_compared(tmp_path):
    done, longer = run(tmp_path, "done", **{"a/x": 1.0}), run(tmp_path, "l", 9, **{"a/x": 1.0})
    with pytest.raises(ValueError, match=r"different steps, \[5, 9\]"):
        table(["a"], ["x"], {"mine": [done, longer]})
    with pytest.raises(ValueError, match=r"has no a/y: it has \['a/x'\]"):
        table(["a"], ["y"], {"mine": [done]})
    with pytest.raises(ValueError, match="has no results in run.json"):
        table(["a"], ["x"], {"mine": [run(tmp_path, "cut short")]})
    with pytest.raises(ValueError, match="nowhere has no results"):
        table(["a"], ["x"], {"mine": [tmp_path / "nowhere"]})


def test_results_of_two_versions_of_a_metric_are_not_averaged(tmp_path):
    runs = [run(tmp_path, name, **{"a/x": 1.0}) for name in ("old", "new")]
    for path, mark in zip(runs, ("0123", "4567")):
        found = json.loads((path / "run.json").read_text())
        found["results"]["evaluators"] = {"a": mark}
        (path / "run.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match="old and .*new evaluated 'a' by different settings"):
        table(["a"], ["x"], {"mine": runs})
    assert "1.000" in table(["a"], ["x"], {"old": runs[:1], "new": runs[1:]})
