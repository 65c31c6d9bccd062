"""POPE's metrics by hand."""

import pytest

from mmjax.evals import question_answering
from mmjax.evals.metrics.yes_no import yes_no_metrics


def test_counts_by_hand():
    answers = ["yes", "Yes, a bus.", "no", "No.", "a bus", "yes"]
    truth = ["yes", "no", "no", "yes", "yes", "yes"]
    found = yes_no_metrics(answers, truth)
    assert found["accuracy"] == 3 / 6 and found["yes_ratio"] == 3 / 6 and found["other"] == 1 / 6
    assert found["precision"] == 2 / 3 and found["recall"] == 2 / 4
    assert found["f1"] == pytest.approx(2 * (2 / 3) * 0.5 / (2 / 3 + 0.5))
    never = yes_no_metrics(["no", "no"], ["yes", "no"])
    assert never["precision"] == never["f1"] == 0 and never["accuracy"] == 0.5


def test_questions_with_other_answers_are_left_out():
    human = [["yes"], ["red"], ["no"], ["yes", "yes"]]
    found = dict(question_answering._yes_no(["yes", "yes", "yes", "no"], human))
    assert found["yes_no/accuracy"] == 1 / 3 and found["yes_no/recall"] == 1 / 2
    assert not dict(question_answering._yes_no(["red"], [["red"]]))
