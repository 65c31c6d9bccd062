"""The first screen: the result beside the baselines, and whether training was healthy."""

import json
import math

import pytest

from mmjax.report import headline, training
from mmjax.report.gather import ReportData
from mmjax.report.losses import compare_losses
from mmjax.report.page import write_report

RESULTS = {
    "seen": {"text_to_image/recall@1": 0.25, "image_to_text/recall@1": 0.5, "absent": 4.0},
    "unseen": {"text_to_image/recall@1": 0.125, "image_to_text/recall@1": 0.125},
    "health": {"modality_gap": 0.5},
}
BASELINES = {
    "chance": {n: dict.fromkeys(RESULTS["unseen"], 0.01) for n in ("seen", "unseen")},
    "words": {
        "seen": {"text_to_image/recall@1": 0.2, "image_to_text/recall@1": 0.6},
        "unseen": {"text_to_image/recall@1": 0.5, "image_to_text/recall@1": 0.1},
    },
}
EXAMPLES = {"seen": 1004, "unseen": 100, "health": 100}


def test_wilson_intervals():
    # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3: 81 of 263, and 0 of 20.
    assert headline.wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert headline.wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert headline.wilson(1.0, 20) == pytest.approx((1 - 0.1611, 1.0), abs=5e-5)


def test_the_headline_has_both_directions_with_intervals_and_the_best_baseline_first():
    groups = headline.headline(RESULTS, BASELINES, EXAMPLES)
    assert [g.metric for g in groups] == ["text_to_image/recall@1", "image_to_text/recall@1"]
    for group in groups:
        assert [*group.models] == ["this run", "words", "chance"]
        assert [*group.models["this run"]] == ["seen", "unseen"]
    mine = groups[0].models["this run"]["seen"]
    assert mine.value == 0.25 and mine.interval == headline.wilson(0.25, 1000)  # without absent
    assert headline.verdict(groups) == (
        "Ahead of every baseline in 2 of 4 comparisons; behind words in 2; "
        "the intervals overlap in 2."
    )


@pytest.mark.parametrize(
    ("mine", "words", "said"),
    [
        (0.5, 0.1, "Ahead of every baseline."),
        (0.1, 0.5, "Behind words."),
        (0.5, 0.5, "Behind words; the intervals overlap in 1."),
        (0.5, None, ""),
    ],
)
def test_the_verdict_is_one_sentence(mine, words, said):
    baselines = {} if words is None else {"words": {"test": {"top1": words}}}
    groups = headline.headline({"test": {"top1": mine}}, baselines, {"test": 400})
    assert headline.verdict(groups) == said


def test_of_a_rate_of_errors_the_lower_is_ahead():
    groups = headline.headline({"test": {"wer": 0.1}}, {"old": {"test": {"wer": 0.3}}}, {"test": 9})
    assert headline.verdict(groups) == "Ahead of every baseline."
    assert groups[0].models["this run"]["test"].interval is None  # no fraction of examples


def test_other_metrics_are_their_own_headline_and_no_results_have_none():
    (group,) = headline.headline({"a": {"depth_error": 2.0}}, {}, {"a": 3})
    assert (group.metric, group.title) == ("depth_error", "depth error")
    assert headline.headline({}, {}, {}) == []
    assert headline.headline({"a": {"top1": math.nan}}, {}, {"a": 3}) == []


ROWS = [
    {"step": step, "train/loss": 8 / step, "train/contrastive": 4 / step, "train/grad_norm": 1.0}
    for step in range(1, 41)
]
WEIGHTS = {"contrastive": 1.0, "matching": ((0, 0.0), (40, 1.0))}


def checks_of(tmp_path, rows, weights=WEIGHTS):
    found = training.checks(tmp_path, rows, compare_losses(rows, weights))
    return {check.name: (check.value, check.ok) for check in found}


def test_the_held_out_loss_is_the_weighted_sum_of_its_terms():
    held_out = {"eval/a/contrastive": 2.0, "eval/a/matching": 4.0, "eval/a/logit_scale": 9.0}
    found = compare_losses([*ROWS, {"step": 20, **held_out}, {"step": 40, **held_out}], WEIGHTS)
    assert found.name == "loss" and found.held_out == {"a": ([20, 40], [4.0, 6.0])}


def test_if_terms_are_missing_one_that_both_have_is_compared():
    found = compare_losses([*ROWS, {"step": 40, "eval/a/contrastive": 2.0}], WEIGHTS)
    assert found.name == "contrastive" and found.held_out == {"a": ([40], [2.0])}
    assert found.training[1][:2] == [4.0, 2.0]
    assert compare_losses([{"step": 0, "eval/a/contrastive": 1.0}], WEIGHTS) is None


def test_a_healthy_training_and_one_that_is_not(tmp_path):
    found = checks_of(tmp_path, ROWS)
    assert found["Loss"] == (
        "4.17 → 0.208",
        True,
    )  # means of a tenth: 8/1 ... 8/4 and 8/37 ... 8/40
    assert found["Gradient norm"] == ("median 1, largest 1 at step 1", True)
    assert found["Not finite"] == ("never", True) and "Restarts" not in found
    held_out = [{"step": s, "eval/a/loss_term": x} for s, x in ((10, 1.0), (40, 1.2))]
    bad = {"step": 41, "train/loss": math.inf, "train/grad_norm": 11.0}
    rows = [{**r, "train/loss": float(r["step"])} for r in ROWS]
    rows += [{**r, "train/loss_term": 1.0} for r in held_out] + [bad]
    found = checks_of(tmp_path, rows, {"loss_term": 1.0})
    assert found["Loss"][1] is False and found["Gradient norm"][1] is False
    assert found["Held out"] == ("1.2 at the end, lowest 1 at step 10 (a)", False)
    assert found["Not finite"] == ("in 1 of 43 log lines", False)


def test_restarts_and_bad_records_are_read_from_the_workdir(tmp_path):
    starts = [{"step": s, "time": "2026-01-01T00:00:00"} for s in (0, 200, 1400)]
    (tmp_path / "run.json").write_text(json.dumps({"starts": starts}))
    (tmp_path / "bad_records.jsonl").write_text("{}\n{}\n")
    found = checks_of(tmp_path, [])
    assert found["Restarts"] == ("2, from step 200, step 1,400", None)
    assert found["Bad records"] == ("2 skipped", None)


def test_facts_result_and_health_come_before_everything_else(tmp_path):
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "metrics.jsonl").write_text(lines)
    path = tmp_path / "report.html"
    write_report(
        path,
        tmp_path,
        title="clip",
        facts={"Model": "clip, 5 M parameters", "Trained on": "emoji, 3,231 examples"},
        results=RESULTS,
        data=ReportData(examples=EXAMPLES),
        config={"loss_weights": WEIGHTS},
        baselines=BASELINES,
    )
    page = path.read_text()
    first = page[: page.index('<section id="curves"')]
    for shown in ("5 M parameters", "3,231 examples", "25.0", "22.4–27.8", "words", "chance"):
        assert shown in first, shown
    for shown in ("4.17 → 0.208", "Ahead of every baseline in 2 of 4", "1,004 examples"):
        assert shown in first, shown
    for one, other in (("training", "curves"), ("curves", "results"), ("results", "run")):
        assert page.index(f'<section id="{one}"') < page.index(f'<section id="{other}"')
    assert 'alt="Loss over steps; at the end: training 0.2"' in page
    assert page.count("<caption>") + page.count('role="region"') >= 2
