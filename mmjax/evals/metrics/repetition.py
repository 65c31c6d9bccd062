"""Repetition within texts, and diversity over a set of texts."""

from collections.abc import Sequence

import numpy as np

from mmjax.evals.metrics.ngrams import Tokens, ngram_counts


def repetition_rate(texts: Sequence[Tokens], n: int = 4) -> float:
    """Fraction of n-grams that occurred earlier in the same text: mean over the texts, in [0, 1).

    0 for a text that is too short for an n-gram.

    Source: seq-rep-n of Welleck et al. 2019 (arXiv:1908.04319), section 6.
    """
    rates = []
    for tokens in texts:
        counts = ngram_counts(tokens, n)
        rates.append(1 - len(counts) / counts.total() if counts else 0.0)
    return float(np.mean(rates)) if rates else 0.0


def distinct(texts: Sequence[Tokens], n: int) -> float:
    """Distinct n-grams over all n-grams of the whole set, in [0, 1]; 0 if there are none.

    Decreases with the size of the set: compare sets of the same size.

    Source: Li et al. 2016 (arXiv:1510.03055), section 5.3.
    """
    counts = ngram_counts((), n)
    for tokens in texts:
        counts += ngram_counts(tokens, n)
    return len(counts) / counts.total() if counts else 0.0
