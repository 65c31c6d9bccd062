"""Word and character error rates, with the alignment that they count."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmjax.evals.metrics.ngrams import Tokens

# An aligned pair (reference, hypothesis): None on one side is an insertion or a deletion.
Pair = tuple[str | None, str | None]


class Errors(NamedTuple):
    """Counts over one text or a corpus; adding up those of texts gives those of the corpus."""

    hits: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def reference(self) -> int:
        """The number of words in the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Errors over the words of the reference, at least one: above 1 with many insertions."""
        errors = self.substitutions + self.deletions + self.insertions
        return errors / max(1, self.reference)


def align(reference: Tokens, hypothesis: Tokens) -> list[Pair]:
    """The pairs of a shortest edit from the reference to the hypothesis, in order.

    Of several shortest ones it is the one of rapidfuzz, which jiwer counts, so that the kinds of
    errors agree too: from the end, a deletion is preferred, then an insertion.

    Source: Levenshtein 1966; Wagner and Fischer 1974.
    """
    length = min(len(reference), len(hypothesis))
    first = next((i for i in range(length) if reference[i] != hypothesis[i]), length)
    rest = length - first
    last = next((i for i in range(rest) if reference[-1 - i] != hypothesis[-1 - i]), rest)
    ends = [len(words) - last for words in (reference, hypothesis)]
    pairs = _edits(reference[first : ends[0]], hypothesis[first : ends[1]])
    same = [(word, word) for word in reference[:first]]
    return [*same, *pairs, *((word, word) for word in reference[ends[0] :])]


def _edits(reference: Tokens, hypothesis: Tokens) -> list[Pair]:
    distance = _distances(reference, hypothesis)
    i, j, pairs = len(reference), len(hypothesis), []
    while i and j:
        if distance[j, i] == distance[j, i - 1] + 1:
            i -= 1
            pairs.append((reference[i], None))
        elif j > 1 and distance[j - 1, i] == distance[j - 1, i - 1] - 1:
            j -= 1
            pairs.append((None, hypothesis[j]))
        else:
            i, j = i - 1, j - 1
            pairs.append((reference[i], hypothesis[j]))
    pairs += [(word, None) for word in reversed(reference[:i])]
    pairs += [(None, word) for word in reversed(hypothesis[:j])]
    return pairs[::-1]


def _distances(reference: Tokens, hypothesis: Tokens) -> np.ndarray:
    """[H + 1, R + 1]: the edit distances of all prefixes."""
    ids = {word: i for i, word in enumerate(dict.fromkeys([*reference, *hypothesis]))}
    words = np.asarray([ids[word] for word in reference], np.int32)
    place = np.arange(len(words) + 1, dtype=np.int32)
    rows = [place]
    for word in hypothesis:
        row = rows[-1] + 1
        row[1:] = np.minimum(row[1:], rows[-1][:-1] + (words != ids[word]))
        # Deletions go along the row, each for one more.
        rows.append(np.minimum.accumulate(row - place) + place)
    return np.stack(rows)


def count(pairs: Sequence[Pair]) -> Errors:
    """The errors of an alignment."""
    deletions = sum(b is None for _, b in pairs)
    insertions = sum(a is None for a, _ in pairs)
    hits = sum(a == b for a, b in pairs)
    return Errors(hits, len(pairs) - hits - deletions - insertions, deletions, insertions)


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> Errors:
    """The errors of a corpus in words, split at white space; its `rate` is the word error rate.

    A corpus's rate is the sum of errors over the sum of words, not the mean of the texts' rates; so
    a text with an empty reference adds the words it was given. Where all references are empty, the
    rate is the number of inserted words.

    Raises:
      ValueError: other numbers of references and hypotheses, or none.
    """
    return _total([t.split() for t in references], [t.split() for t in hypotheses])


def character_errors(references: Sequence[str], hypotheses: Sequence[str]) -> Errors:
    """As `word_errors` in characters, spaces between words included."""
    return _total([list(t.strip()) for t in references], [list(t.strip()) for t in hypotheses])


def _total(references: Sequence[Tokens], hypotheses: Sequence[Tokens]) -> Errors:
    if len(references) != len(hypotheses) or not references:
        raise ValueError(
            f"There are {len(references)} references and {len(hypotheses)} hypotheses: an error "
            "rate needs one of each for every recording."
        )
    counts = [count(align(*pair)) for pair in zip(references, hypotheses)]
    return Errors(*map(sum, zip(*counts)))


def show(pairs: Sequence[Pair]) -> str:
    """Three lines: reference, hypothesis, and below each error S, D or I; `*` marks no word."""
    columns = []
    for a, b in pairs:
        kind = "" if a == b else "D" if b is None else "I" if a is None else "S"
        words = ("*" if a is None else a, "*" if b is None else b, kind)
        columns.append([word.ljust(max(map(len, words))) for word in words])
    return "\n".join(" ".join(row).rstrip() for row in zip(*columns))
