"""Results of several steps and settings stay side by side."""

import json

from mmjax.workdir.results import append_results, read_results


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
