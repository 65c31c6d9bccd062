"""Word timestamps: warping against the loop, words against hand-written ones, planted attention."""

import numpy as np
import pytest

from mmjax.speech.segments import Word
from mmjax.speech.words import evidence, split_words, time_words, warp

RNG = np.random.default_rng(0)


def slow_warp(cost):
    """By recursion over cells, with the trace of openai-whisper's dtw."""
    n, m = cost.shape
    total, trace = np.full((n + 1, m + 1), np.inf), np.zeros((n + 1, m + 1), int)
    total[0, 0] = 0
    trace[0], trace[:, 0] = 2, 1
    for j in range(1, m + 1):
        for i in range(1, n + 1):
            c = (total[i - 1, j - 1], total[i - 1, j], total[i, j - 1])
            t = 0 if c[0] < min(c[1:]) else 1 if c[1] < min(c[0], c[2]) else 2
            total[i, j], trace[i, j] = cost[i - 1, j - 1] + c[t], t
    path, i, j = [], n, m
    while i > 0 or j > 0:
        path.append((i - 1, j - 1))
        t = trace[i, j]
        i, j = i - (t in (0, 1)), j - (t in (0, 2))
    rows, columns = np.asarray(path[::-1]).T
    return columns[np.pad(np.diff(rows), (1, 0), constant_values=1).astype(bool)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 5), (7, 40), (12, 9)])
def test_warping_is_that_of_the_loop(shape):
    for _ in range(5):
        cost = RNG.normal(size=shape)
        np.testing.assert_array_equal(warp(cost), slow_warp(cost))
    # Where costs are equal, any cheapest path: here along the diagonal.
    np.testing.assert_array_equal(warp(np.zeros((4, 4))), np.arange(4))


def test_planted_attention_is_found():
    begins = np.asarray([0, 10, 25, 26, 60])
    attention = RNG.uniform(0, 0.1, size=(2, 3, 5, 100))
    for token, (a, b) in enumerate(zip(begins, [*begins[1:], 80])):
        attention[1, 2, token, a:b] += 1
    found = warp(-evidence(attention, [(1, 2)], 80))
    assert (np.abs(found - begins) <= 2).all()


def test_words_begin_at_spaces_and_punctuation():
    texts = {1: " Hel", 2: "lo", 3: ",", 4: " world", 5: "!", 6: "\N{REPLACEMENT CHARACTER}"}

    def decode(ids):
        return "".join(texts[i] for i in ids).replace(texts[6] * 2, "é")

    words = split_words([1, 2, 3, 4, 6, 6, 5], decode, "en")
    assert words == [(" Hello", [1, 2]), (",", [3]), (" worldé", [4, 6, 6]), ("!", [5])]
    words = split_words([1, 2, 6, 6], decode, "zh")
    assert words == [(" Hel", [1]), ("lo", [2]), ("é", [6, 6])]


def test_punctuation_joins_words_and_long_words_are_cut():
    words = [(' "', [1]), ("A", [2, 3]), (".", [4]), (" long", [5]), ("!", [6])]
    begins = np.asarray([0.0, 0.2, 0.3, 0.5, 0.7, 5.0, 5.1])
    found = time_words(words, [0.5, 1.0, 0.5, 0.1, 0.2, 0.3], begins)
    assert [w.word for w in found] == [' "A.', " long!"]
    assert found[0] == Word(' "A.', 0.2, 0.5, 0.75)
    # The median word is 0.2 s long, so that after a full stop has at most 0.4 s.
    assert (found[1].start, found[1].end) == (pytest.approx(4.6), 5.0)
    assert time_words([(" a", [1])], [0.5], np.asarray([1.0, 1.0])) == [Word(" a", 1.0, 1.0, 0.5)]
