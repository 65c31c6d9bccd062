"""All text metrics of a set of captions."""

from collections.abc import Sequence

import numpy as np

from mmjax.evals.metrics.bleu import bleu
from mmjax.evals.metrics.cider import cider
from mmjax.evals.metrics.meteor_exact import meteor_exact
from mmjax.evals.metrics.ptb import tokenize
from mmjax.evals.metrics.repetition import distinct, repetition_rate
from mmjax.evals.metrics.rouge import rouge_l


def caption_metrics(texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """BLEU-1..4, ROUGE-L, METEOR-exact, CIDEr (0 to 10), repetition, length.

    Args:
      texts: one per image; references: one or more human captions per image.

    Raises:
      ValueError: see `mmjax.evals.metrics.ngrams.check_corpus`.
    """
    tokens = [tokenize(text) for text in texts]
    given = [[tokenize(text) for text in own] for own in references]
    return {
        **{f"bleu_{n}": float(score) for n, score in enumerate(bleu(tokens, given), 1)},
        "rouge_l": float(rouge_l(tokens, given).mean()),
        "meteor_exact": meteor_exact(tokens, given)[0],
        "cider": float(cider(tokens, given).mean()),
        "repetition_2": repetition_rate(tokens, 2),
        "repetition_4": repetition_rate(tokens, 4),
        "distinct_1": distinct(tokens, 1),
        "distinct_2": distinct(tokens, 2),
        "tokens": float(np.mean([len(t) for t in tokens])),
    }
