"""CIDEr and CIDEr-D: consensus with the references in tf-idf vectors of 1- to 4-grams.

What most papers call CIDEr is `cider_d`: coco-caption's `Cider` clips, has the length penalty and
multiplies by 10. `cider` is the paper's first formula, without these. Neither stems.
"""

import collections
import math
from collections.abc import Callable, Sequence

import numpy as np

from mmjax.evals.metrics.ngrams import References, Tokens, check_corpus, ngram_counts

MAX_N = 4
SIGMA = 6.0  # of the length penalty, in tokens

Vector = dict[tuple[str, ...], float]


def cider(hypotheses: Sequence[Tokens], references: References) -> np.ndarray:
    """CIDEr of each text `[N]`, in [0, 1]: the mean cosine with its references over n = 1 ... 4.

    An n-gram's weight is its count in the text times log(N / number of the N examples with it in a
    reference, at least 1); the length of a text cancels in the cosine. The weights come from the
    references given, so figures of two sets do not compare, and N = 1 gives 0.

    Raises:
      ValueError: see `check_corpus`.

    Source: Vedantam et al. 2015 (arXiv:1411.5726), equations 1 to 3.
    """
    return _scores(hypotheses, references, lambda tokens, text: _dot)


def cider_d(hypotheses: Sequence[Tokens], references: References) -> np.ndarray:
    """CIDEr-D of each text `[N]`, in [0, 10]: as coco-caption's `Cider` computes it.

    As `cider`, times 10, where a text's weight counts no further than its reference's (norms stay
    unclipped), times exp(-(difference in length)^2 / (2 * 6^2)). Length is the number of 2-grams,
    as in coco-caption: it differs from the number of tokens for an empty text alone.

    Raises:
      ValueError: see `check_corpus`.

    Source: Vedantam et al. 2015 (arXiv:1411.5726), section "CIDEr-D".
    """

    def dot_for(tokens: Tokens, text: Tokens) -> Callable[[Vector, Vector], float]:
        difference = max(0, len(tokens) - 1) - max(0, len(text) - 1)
        penalty = 10.0 * math.exp(-(difference**2) / (2 * SIGMA**2))
        return lambda a, b: penalty * sum(min(w, b[g]) * b[g] for g, w in a.items() if g in b)

    return _scores(hypotheses, references, dot_for)


def _dot(a: Vector, b: Vector) -> float:
    return sum(weight * b[gram] for gram, weight in a.items() if gram in b)


def _norm(a: Vector) -> float:
    return math.sqrt(sum(weight**2 for weight in a.values()))


def _scores(
    hypotheses: Sequence[Tokens],
    references: References,
    dot_for: Callable[[Tokens, Tokens], Callable[[Vector, Vector], float]],
) -> np.ndarray:
    check_corpus(hypotheses, references)
    total = np.zeros(len(hypotheses))
    for n in range(1, MAX_N + 1):
        counts = [[ngram_counts(text, n) for text in texts] for texts in references]
        seen_in = collections.Counter(gram for texts in counts for gram in set().union(*texts))

        def weigh(grams: collections.Counter, seen_in: collections.Counter = seen_in) -> Vector:
            size = len(hypotheses)
            return {g: c * math.log(size / max(1, seen_in[g])) for g, c in grams.items()}

        for i, (tokens, texts) in enumerate(zip(hypotheses, references)):
            mine = weigh(ngram_counts(tokens, n))
            for text, text_counts in zip(texts, counts[i]):
                theirs = weigh(text_counts)
                norm = _norm(mine) * _norm(theirs)
                if norm:
                    total[i] += dot_for(tokens, text)(mine, theirs) / norm / len(texts)
    return total / MAX_N
