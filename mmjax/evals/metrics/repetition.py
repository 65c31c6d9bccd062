"""How much texts repeat themselves, and each other."""

from collections.abc import Sequence

import numpy as np

from mmjax.evals.metrics.ngrams import Tokens, ngram_counts


def repetition_rate(texts: Sequence[Tokens], n: int = 4) -> float:
    """Share of n-grams that have come before in the same text: mean over the texts, in [0, 1).

    A text that is too short for an n-gram repeats none.

    Source: seq-rep-n of Welleck et al. 2019 (arXiv:1908.04319), section 6.
    """
    shares = []
    for tokens in texts:
        counts = ngram_counts(tokens, n)
        shares.append(1 - len(counts) / counts.total() if counts else 0.0)
    return float(np.mean(shares)) if shares else 0.0


def distinct(texts: Sequence[Tokens], n: int) -> float:
    """Different n-grams over all n-grams of the whole set, in [0, 1]; 0 where there are none.

    Falls as a set grows: compare sets of one size.

    Source: Li et al. 2016 (arXiv:1510.03055), section 5.3.
    """
    counts = ngram_counts((), n)
    for tokens in texts:
        counts += ngram_counts(tokens, n)
    return len(counts) / counts.total() if counts else 0.0
