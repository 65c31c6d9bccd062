"""CIDEr: consensus with the references in tf-idf vectors of 1- to 4-grams."""

import collections
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mmjax.evals.metrics.ngrams import References, Tokens, check_corpus, ngram_counts

MAX_N = 4
SIGMA = 6.0  # of the length penalty, in tokens

Vector = dict[tuple[str, ...], float]


def cider(hypotheses: Sequence[Tokens], references: References) -> Float[np.ndarray, " n"]:
    """CIDEr of each text `[N]`, in [0, 10]: as coco-caption's `Cider`, which is CIDEr-D unstemmed.

    Ten times the mean over n = 1 ... 4 of the cosine with each reference. An n-gram's weight is its
    count in the text times log(N / number of the N examples with it in a reference, at least 1);
    in the dot product a text's weight is clipped to its reference's, and the product is multiplied
    by exp(-(difference in length)^2 / (2 * 6^2)). Length is the number of 2-grams, as in
    coco-caption, which makes a difference only for empty texts. The weights depend on the given
    references, so values of different sets are not comparable, and N = 1 gives 0.

    Raises:
      ValueError: see `check_corpus`.

    Source: Vedantam et al. 2015 (arXiv:1411.5726), equations 1 to 3 and section "CIDEr-D".
    """
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
                    penalty = 10.0 * _length_penalty(tokens, text)
                    total[i] += penalty * _clipped_dot(mine, theirs) / norm / len(texts)
    return total / MAX_N


def _length_penalty(tokens: Tokens, text: Tokens) -> float:
    difference = max(0, len(tokens) - 1) - max(0, len(text) - 1)
    return math.exp(-(difference**2) / (2 * SIGMA**2))


def _clipped_dot(a: Vector, b: Vector) -> float:
    return math.fsum(min(weight, b[gram]) * b[gram] for gram, weight in a.items() if gram in b)


def _norm(a: Vector) -> float:
    return math.sqrt(sum(weight**2 for weight in a.values()))
