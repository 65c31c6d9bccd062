"""Results of several steps and settings stay side by side."""

import json

from mmjax.workdir.results import append_results, read_results, rewind_results


def test_nothing_is_replaced_and_a_torn_line_is_cut_off(tmp_path):
    append_results(tmp_path, 400, "seen", "aa", {"recall@1": 0.25, "loss": float("inf")})
    with open(tmp_path / "results.jsonl", "a") as file:
        file.write('{"step": 600, "eval')
    append_results(tmp_path, 600, "seen", "aa", {"recall@1": 0.5})
    append_results(tmp_path, 600, "seen", "bb", {"recall@1": 0.75})
    assert read_results(tmp_path) == {
        (400, "seen", "aa"): {"recall@1": 0.25, "loss": float("inf")},
        (600, "seen", "aa"): {"recall@1": 0.5},
        (600, "seen", "bb"): {"recall@1": 0.75},
    }


def test_a_run_of_before_has_the_results_of_run_json(tmp_path):
    assert read_results(tmp_path) == {}
    values = {"seen/recall@1": 0.5, "seen/text/loss": "NaN", "seen_too/top1": 1.0}
    own = {"step": 6, "evaluators": {"seen": "aa", "seen_too": "bb"}, "values": values}
    (tmp_path / "run.json").write_text(json.dumps({"results": own}))
    found = read_results(tmp_path)
    assert found[6, "seen_too", "bb"] == {"top1": 1.0}
    assert found[6, "seen", "aa"].keys() == {"recall@1", "text/loss"}


def test_training_again_from_an_earlier_step_drops_what_came_later(tmp_path):
    for step in (400, 600):
        append_results(tmp_path, step, "seen", "aa", {"recall@1": step / 1000})
    own = {"step": 600, "evaluators": {"seen": "aa"}, "values": {"seen/recall@1": 0.6}}
    (tmp_path / "run.json").write_text(json.dumps({"results": own, "config": {}}))
    rewind_results(tmp_path, 600)
    assert len(read_results(tmp_path)) == 2
    rewind_results(tmp_path, 500)
    assert read_results(tmp_path) == {(400, "seen", "aa"): {"recall@1": 0.4}}
    assert json.loads((tmp_path / "run.json").read_text())["results"] == {}
