"""VQA accuracy against the published rule written out, and by hand; priors from training alone."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmjax.evals.vqa import (
    answer_prior,
    most_frequent,
    normalize_answer,
    soft_accuracy,
    vqa_metrics,
)


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The Dog.", "dog"),
        ("a cat and an owl", "cat and owl"),
        ("two", "2"),
        ("None", "0"),
        ("ten ones", "10 ones"),
        ("3.5", "3.5"),
        ("st. 1.5.", "st 1.5"),
        ("red/blue", "red blue"),
        ("red / blue", "red blue"),
        ("red, blue", "red blue"),
        ("black-and-white", "black and white"),
        ("1,000", "1000"),
        ("1,000 t-shirts", "1000 tshirts"),  # a comma in a number: all signs go without a trace
        ("t-shirt - red", "tshirt red"),  # a sign beside a space goes so everywhere
        ("dont", "don't"),
        ("don't", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldntve", "couldntve"),
        ("oclock", "o'clock"),
        ("café 日本", "café 日本"),
        ("", ""),
        ("the", ""),
    ],
)
def test_normal_answers(answer, normal):
    assert normalize_answer(answer) == normal
    assert normalize_answer(normal) == normal


answers = st.sampled_from(["red", "Red.", "blue", "a blue", "two", "2", "yes"])


@given(answers, st.lists(answers, min_size=10, max_size=10))
def test_soft_accuracy_is_the_rule_over_all_nines(answer, human):
    if len(set(human)) > 1:
        answer, human = normalize_answer(answer), [normalize_answer(h) for h in human]
    nines = list(itertools.combinations(human, 9))
    rule = sum(min(1, sum(h == answer for h in nine) / 3) for nine in nines) / 10
    assert soft_accuracy(answer, human) == pytest.approx(rule)


@pytest.mark.parametrize(
    ("matches", "accuracy"),
    # Of ten leave-outs, m drop a match: m=1 leaves 1/3 nine times; m=3 leaves 2/3 three times.
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0)],
)
def test_soft_accuracy_by_hand(matches, accuracy):
    human = ["red"] * matches + [f"other {i}" for i in range(10 - matches)]
    assert soft_accuracy("The Red!", human) == pytest.approx(accuracy)


def test_where_all_agree_nothing_is_normalised():
    assert soft_accuracy(" yes\n", ["yes"] * 10) == 1.0
    assert soft_accuracy("Yes", ["yes"] * 10) == 0.0
    assert soft_accuracy("Yes", ["yes"] * 9 + ["no"]) == 1.0


def test_one_human_answer_is_equal_or_not():
    assert soft_accuracy("The Food & Drink.", ["food & drink"]) == 1.0
    assert soft_accuracy("food", ["food & drink"]) == 0.0
    with pytest.raises(ValueError, match="'x' has no human answer"):
        soft_accuracy("x", [])


def test_metrics_by_hand():
    human = [["red"], ["red"], ["red"], ["blue"], ["yes"], ["no"]]
    types = ["colour"] * 4 + ["is"] * 2
    found = vqa_metrics(["red"] * 4 + ["yes"] * 2, human, types)
    assert found["accuracy"] == pytest.approx(4 / 6)
    # color: red 1, blue 0; is: yes 1, no 0: always the most frequent answer gains nothing.
    assert found["balanced"] == pytest.approx(1 / 2)
    assert found["type_colour"] == 3 / 4 and found["type_is"] == 1 / 2
    assert found["questions"] == 6
    with pytest.raises(ValueError, match="2 answers for 1 questions of 1 types"):
        vqa_metrics(["a", "b"], [["a"]], ["t"])
    with pytest.raises(ValueError, match="at least one question"):
        vqa_metrics([], [], [])


def test_priors():
    train = [("c", "What color?"), ("c", "what  COLOUR?"), ("c", "Colour?"), ("c", "Colour?")]
    train += [("is", "Is it?")] * 3
    given = ["Red.", "red", "blue", "blue", "yes", "yes", "yes"]
    test = [("c", "what color?"), ("c", "Which?"), ("new", "Who?")]
    assert answer_prior("all", train, given, test) == ["yes"] * 3
    # red and blue twice each: the first in order
    assert answer_prior("type", train, given, test) == ["blue", "blue", "yes"]
    assert answer_prior("question", train, given, test) == ["red", "blue", "yes"]
    assert most_frequent(["b", "a", "b", "a", "c"]) == "a"
