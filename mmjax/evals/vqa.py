"""VQA accuracy by the official rule, and answer priors as baselines without the image."""

import collections
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_DIGITS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4"}
_DIGITS |= {"five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
# Words whose missing apostrophes are restored.
_APOSTROPHES = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've "
    "hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't "
    "mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't "
    "she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd "
    "someone'd've someone'll someone's something'd something'd've something'll that's there'd "
    "there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've "
    "we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've "
    "who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll "
    "y'all'd've you'd you'd've you'll you're you've"
)
_CONTRACTIONS = {
    word[:i] + word[i + 1 :]: word
    for word in _APOSTROPHES.split()
    for i, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}  # as in the official table


def normalize_answer(answer: str) -> str:
    """Lower case without articles and punctuation, number words as digits, contractions fixed.

    Punctuation next to a space, or anywhere in an answer that contains a number with a comma, is
    removed; otherwise it becomes a space. Periods are kept only before digits.

    Source: Antol et al. 2015 (arXiv:1505.00468); processPunctuation and processDigitArticle of the
    official evaluation (github.com/GT-Vision-Lab/VQA).
    """
    text = answer
    in_number = _DIGIT_COMMA.search(answer)
    for sign in _PUNCTUATION:
        beside_space = f"{sign} " in answer or f" {sign}" in answer
        text = text.replace(sign, "" if beside_space or in_number else " ")
    words = [_DIGITS.get(word, word) for word in _PERIOD.sub("", text).lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def soft_accuracy(answer: str, human: Sequence[str]) -> float:
    """Soft VQA accuracy of an answer, in [0, 1].

    The mean, over leaving out each of the human answers in turn, of min(1, matches among the
    others / 3). As in the official evaluation, texts are normalized only if the human answers
    differ; if they are all the same, the answer must equal it up to outer white space.

    With a single human answer, for which the rule is not defined, it is exact match after
    normalization.

    Raises:
      ValueError: no human answer.

    Source: Antol et al. 2015 (arXiv:1505.00468), and the official evaluation.
    """
    if not human:
        raise ValueError(f"The answer '{answer}' has no human answer to compare it with.")
    answer, *human = [re.sub(r"[\n\t]", " ", text).strip() for text in (answer, *human)]
    if len(human) == 1 or len(set(human)) > 1:
        answer, *human = map(normalize_answer, (answer, *human))
    if len(human) == 1:
        return float(answer == human[0])
    matches = human.count(answer)
    # Leaving out a matching answer leaves one match less.
    left_out = [min(1.0, (matches - (text == answer)) / 3) for text in human]
    return sum(left_out) / len(human)


def vqa_metrics(
    answers: Sequence[str], human: Sequence[Sequence[str]], types: Sequence[str]
) -> dict[str, float]:
    """Accuracy over all questions, balanced, and per type; in [0, 1].

    The balanced accuracy is the mean over types of the mean over answers, as on a set in which all
    types, and all answers within a type, are equally frequent. A question's answer is the most
    frequent human one (ties: the first alphabetically). Guessing by priors does not help there.

    Raises:
      ValueError: lists of different lengths, or empty.

    Source: Goyal et al. 2017 (arXiv:1612.00837) on the need for a balanced metric.
    """
    if not len(answers) == len(human) == len(types) or not answers:
        raise ValueError(
            f"VQA has {len(answers)} answers for {len(human)} questions of {len(types)} types: "
            "give one answer and one type per question, and at least one question."
        )
    scores = [soft_accuracy(a, h) for a, h in zip(answers, human)]
    cells: dict[str, dict[str, list[float]]] = {}
    for score, texts, kind in zip(scores, human, types):
        usual = most_frequent([normalize_answer(text) for text in texts])
        cells.setdefault(kind, {}).setdefault(usual, []).append(score)
    by_type = {k: [s for cell in cells[k].values() for s in cell] for k in sorted(cells)}
    balanced = [np.mean([np.mean(cell) for cell in cells[k].values()]) for k in sorted(cells)]
    return {
        "accuracy": float(np.mean(scores)),
        "balanced": float(np.mean(balanced)),
        **{f"type_{kind}": float(np.mean(values)) for kind, values in by_type.items()},
        "questions": float(len(scores)),
    }


def most_frequent(answers: Sequence[str]) -> str:
    """The answer that occurs most often; ties: the first alphabetically."""
    counts = collections.Counter(answers)
    return min(counts, key=lambda answer: (-counts[answer], answer))


PRIORS = ("all", "type", "question")


def answer_prior(
    by: str, train: Sequence[Any], answers: Sequence[str], test: Sequence[Any]
) -> list[str]:
    """The most frequent training answer for each test question, as a baseline without the image.

    Args:
      by: one of `PRIORS`: over all training questions, those of the same type, or those with the
        same words (ignoring case and white space). Falls back to the type, then to all questions.
      train, test: questions, each a pair (type, question); answers: those of `train`.
    """
    wanted = PRIORS.index(by)
    keys: list[Callable[[tuple[str, str]], Any]] = [
        lambda q: "",
        lambda q: q[0],
        lambda q: (q[0], " ".join(q[1].casefold().split())),
    ]
    tables = []
    for key in keys[: wanted + 1]:
        groups: dict[Any, list[str]] = {}
        for question, answer in zip(train, answers, strict=True):
            groups.setdefault(key(question), []).append(normalize_answer(answer))
        usual = {k: most_frequent(group) for k, group in groups.items()}
        tables.append((key, usual))
    return [next(usual[key(q)] for key, usual in reversed(tables) if key(q) in usual) for q in test]
