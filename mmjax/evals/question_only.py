"""The question-only baseline of VQA: a linear model on the words of the question."""

import collections
from collections.abc import Sequence

import numpy as np
import scipy.sparse

from mmjax.evals.linear_probe import fit_logistic
from mmjax.evals.metrics.ngrams import ngram_counts
from mmjax.evals.metrics.ptb import tokenize

# n-grams in fewer training questions are ignored.
LEAST = 3
# Fixed, and few steps, because this runs in every evaluation.
L2, STEPS = 1e-5, 50


def word_runs(questions: Sequence[str]) -> list[set[tuple[str, ...]]]:
    """The 1-grams and 2-grams of each question, with markers for its start and end."""
    runs = []
    for question in questions:
        words = ["<", *tokenize(question), ">"]
        runs.append({run for n in (1, 2) for run in ngram_counts(words, n)})
    return runs


def question_only(
    train: Sequence[str], answers: Sequence[str], questions: Sequence[str]
) -> list[str]:
    """Answers of a logistic regression on the binary 1-gram and 2-gram features of a question.

    Args:
      train: training questions; answers: their answers; questions: those to answer.
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
    # Sorted, so that sums are reproducible.
    rows = [sorted(known[run] for run in own if run in known) for own in runs]
    ends = np.cumsum([0, *map(len, rows)])
    columns = np.asarray([i for row in rows for i in row], np.int64)
    ones = np.ones(len(columns))
    return scipy.sparse.csr_array((ones, columns, ends), shape=(len(rows), len(known)))
