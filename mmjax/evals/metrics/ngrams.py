"""n-grams of token lists, and the input check of all text metrics."""

import collections
from collections.abc import Sequence

Tokens = Sequence[str]
References = Sequence[Sequence[Tokens]]


def ngram_counts(tokens: Tokens, n: int) -> collections.Counter[tuple[str, ...]]:
    """The counts of the n-grams of `tokens`."""
    return collections.Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def check_corpus(hypotheses: Sequence[Tokens], references: References) -> None:
    """Check that there are texts, and at least one reference for each.

    Raises:
      ValueError: no texts, a different number of reference lists, or an empty one.
    """
    if len(hypotheses) != len(references) or not hypotheses:
        raise ValueError(
            f"There are {len(hypotheses)} texts and references for {len(references)}: a text "
            "metric needs at least one text, and a list of references for each."
        )
    for i, texts in enumerate(references):
        if not texts:
            raise ValueError(f"Text {i} has no reference: give it one or leave it out.")
        if isinstance(hypotheses[i], str) or any(isinstance(text, str) for text in texts):
            raise ValueError(
                f"Text {i} or a reference of it is a string: text metrics take lists of tokens; "
                "split it with mmjax.evals.metrics.ptb.tokenize."
            )
