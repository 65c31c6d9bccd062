"""BLEU-1 to BLEU-4 of a corpus, by the rules of the COCO caption evaluation."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mmjax.evals.metrics.ngrams import References, Tokens, check_corpus, ngram_counts

# COCO's smoothing: almost 0 instead of 0 without a match, and no division by 0 without n-grams.
_TINY, _SMALL = 1e-15, 1e-9


def bleu(
    hypotheses: Sequence[Tokens], references: References, max_n: int = 4
) -> Float[np.ndarray, " {max_n}"]:
    """BLEU-1 ... BLEU-n `[max_n]` over the corpus, in [0, 1].

    Matches are clipped by the maximum count in a reference; the brevity penalty uses, for each
    text, the reference closest in length (ties: the shorter). BLEU-4 of texts with fewer than four
    tokens is almost 0, whatever their quality.

    Raises:
      ValueError: see `check_corpus`.

    Source: Papineni et al. 2002, section 2.3; the choices are those of coco-caption (Chen et al.
    2015, arXiv:1504.00325).
    """
    check_corpus(hypotheses, references)
    correct, guessed = np.zeros(max_n), np.zeros(max_n)
    length = reference_length = 0
    for tokens, texts in zip(hypotheses, references):
        length += len(tokens)
        reference_length += min((abs(len(t) - len(tokens)), len(t)) for t in texts)[1]
        for n in range(1, max_n + 1):
            most = ngram_counts((), n)
            for text in texts:
                most |= ngram_counts(text, n)
            counts = ngram_counts(tokens, n)
            correct[n - 1] += (counts & most).total()
            guessed[n - 1] += counts.total()
    precision = (correct + _TINY) / (guessed + _SMALL)
    scores = np.cumprod(precision) ** (1 / np.arange(1, max_n + 1))
    ratio = (length + _TINY) / (reference_length + _SMALL)
    # exp(1 - 1/ratio) underflows to 0, as it should, if all texts are empty.
    return scores * math.exp(1 - 1 / ratio) if ratio < 1 else scores
