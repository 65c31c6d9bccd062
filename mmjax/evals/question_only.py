"""What a linear model makes of the question alone: words in, answer out, no image."""

import collections
from collections.abc import Sequence

import numpy as np
import scipy.sparse

from mmjax.evals.linear_probe import fit_logistic
from mmjax.evals.metrics.ngrams import ngram_counts
from mmjax.evals.metrics.ptb import tokenize

# Runs of words that fewer training questions have are not looked at.
LEAST = 3
# Few and fixed, because this runs beside every evaluation.
L2, STEPS = 1e-5, 50


def word_runs(questions: Sequence[str]) -> list[set[tuple[str, ...]]]:
    """The words of each question and its pairs of neighbouring words, with its start and end."""
    runs = []
    for question in questions:
        words = ["<", *tokenize(question), ">"]
        runs.append({run for n in (1, 2) for run in ngram_counts(words, n)})
    return runs


def question_only(
    train: Sequence[str], answers: Sequence[str], questions: Sequence[str]
) -> list[str]:
    """The answers of logistic regression on which words and pairs of words a question has.

    Args:
      train: training questions; answers: theirs; questions: those to answer.
    """
    runs = word_runs(train)
    count = collections.Counter(run for own in runs for run in own)
    known = {run: i for i, run in enumerate(r for r in sorted(count) if count[r] >= LEAST)}
    names = sorted(set(answers))
    labels = np.asarray([names.index(answer) for answer in answers])
    x, test = (_indicators(own, known) for own in (runs, word_runs(questions)))
    w, b = fit_logistic(x, labels, len(names), L2, max_steps=STEPS)
    return [names[i] for i in (test @ w + b[None, :]).argmax(axis=1)]


def _indicators(runs: Sequence[set], known: dict[tuple[str, ...], int]) -> scipy.sparse.csr_array:
    # In order, so that sums are equal from run to run.
    rows = [sorted(known[run] for run in own if run in known) for own in runs]
    ends = np.cumsum([0, *map(len, rows)])
    columns = np.asarray([i for row in rows for i in row], np.int64)
    ones = np.ones(len(columns))
    return scipy.sparse.csr_array((ones, columns, ends), shape=(len(rows), len(known)))
