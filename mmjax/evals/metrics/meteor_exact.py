"""METEOR with only its exact-match stage.

Omitted features of METEOR 1.5 for English: stems (Porter), synonyms (WordNet), paraphrases (a
table), and the lower weight of function words. The result equals METEOR 1.5 run with
`-m exact -w 1.0 -p '0.85 0.2 0.6 0.5'`; it is lower than full METEOR and not comparable to it.
"""

import collections
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mmjax.evals.metrics.ngrams import References, Tokens, check_corpus

# METEOR 1.5's parameters for English ("rank").
ALPHA, BETA, GAMMA = 0.85, 0.2, 0.6
# Alignments kept at each token; only texts with many repeated words exceed it.
BEAM = 400


class Stats(NamedTuple):
    """Match counts of a text and one reference; may be summed over a corpus."""

    matches: int
    length: int
    reference_length: int
    chunks: int  # runs of matches that are adjacent in both; 0 where the two are equal

    def score(self) -> float:
        """(1 - penalty) * Fmean, in [0, 1]."""
        if not self.matches:
            return 0.0
        precision, recall = self.matches / self.length, self.matches / self.reference_length
        mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
        return mean * (1 - GAMMA * (self.chunks / self.matches) ** BETA)


def align(tokens: Tokens, text: Tokens) -> Stats:
    """The alignment with the most matches and, of those, the fewest chunks."""
    places = collections.defaultdict(list)
    for place, token in enumerate(text):
        places[token].append(place)
    count = collections.Counter(tokens)
    spare = {token: count[token] - len(where) for token, where in places.items()}
    # (bit set of used places, place of the previous token) -> chunks
    states = {(0, None): 0}
    seen = collections.Counter()
    for token in tokens:
        following: dict[tuple[int, int | None], int] = {}
        where = places.get(token, ())
        for (used, last), chunks in states.items():
            for place in where:
                if not used >> place & 1:
                    key = (used | 1 << place, place)
                    cost = chunks + (last is None or place != last + 1)
                    following[key] = min(cost, following.get(key, cost))
            taken = sum(used >> place & 1 for place in where)
            if not where or seen[token] - taken < spare[token]:  # seen - taken: skipped so far
                following[used, None] = min(chunks, following.get((used, None), chunks))
        seen[token] += 1
        states = dict(sorted(following.items(), key=lambda item: item[1])[:BEAM])
    (used, _), chunks = min(states.items(), key=lambda item: item[1])
    matches = used.bit_count()
    if list(tokens) == list(text):
        chunks = 0
    return Stats(matches, len(tokens), len(text), chunks)


def meteor_exact(
    hypotheses: Sequence[Tokens], references: References
) -> tuple[float, Float[np.ndarray, " n"]]:
    """METEOR-exact of the corpus (from the sums of all texts) and of each text `[N]`, in [0, 1].

    Of several references the one with the best score is used.

    Raises:
      ValueError: see `check_corpus`.

    Source: Denkowski & Lavie 2014 (METEOR 1.5), section 2.
    """
    check_corpus(hypotheses, references)
    best = [
        max((align(tokens, text) for text in texts), key=Stats.score)
        for tokens, texts in zip(hypotheses, references)
    ]
    whole = Stats(*(sum(column) for column in zip(*best)))
    return whole.score(), np.asarray([stats.score() for stats in best])
