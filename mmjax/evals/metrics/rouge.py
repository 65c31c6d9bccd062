"""ROUGE-L: the longest common subsequence, by the rules of the COCO caption evaluation."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mmjax.evals.metrics.ngrams import References, Tokens, check_corpus

BETA = 1.2  # above 1: recall has more weight than precision


def common_subsequence(a: Tokens, b: Tokens) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            above = row[j]
            row[j] = diagonal + 1 if x == y else max(above, row[j - 1])
            diagonal = above
    return row[-1]


def rouge_l(hypotheses: Sequence[Tokens], references: References) -> Float[np.ndarray, " n"]:
    """F-measure of each text `[N]`, in [0, 1]; the corpus's ROUGE-L is the mean.

    Precision and recall are each the best over the references, so possibly of different ones. An
    empty text matches only an empty reference.

    Raises:
      ValueError: see `check_corpus`.

    Source: Lin 2004 (ROUGE), section 3, with beta = 1.2 as in coco-caption.
    """
    check_corpus(hypotheses, references)
    scores = []
    for tokens, texts in zip(hypotheses, references):
        tokens, texts = tokens or [""], [text or [""] for text in texts]
        common = [common_subsequence(tokens, text) for text in texts]
        precision = max(common) / len(tokens)
        recall = max(c / len(text) for c, text in zip(common, texts))
        weighted = recall + BETA**2 * precision
        scores.append((1 + BETA**2) * precision * recall / weighted if weighted else 0.0)
    return np.asarray(scores)
