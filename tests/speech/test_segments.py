"""Division of a window's tokens, on cases written out by hand."""

import pytest

from mmjax.speech.segments import Part, split

FIRST = 100


def at(seconds):
    return FIRST + round(seconds / 0.02)


PAIR = [at(0), 1, 2, at(1), at(1.5), 3, at(2)]


@pytest.mark.parametrize("rest", [False, True])
def test_a_window_that_ends_with_one_timestamp_is_covered(rest):
    parts, covered = split(PAIR, FIRST, 30.0, rest)
    assert [(p.start, p.end) for p in parts] == [(0, pytest.approx(1)), (1.5, pytest.approx(2))]
    assert [p.tokens for p in parts] == [tuple(PAIR[:4]), tuple(PAIR[4:])]
    assert covered == 30.0


def test_unfinished_text_is_left_for_the_next_window():
    tokens = [*PAIR, at(2), 4, 5]
    parts, covered = split(tokens, FIRST, 30.0, rest=False)
    assert len(parts) == 2 and covered == pytest.approx(2)
    assert parts[1].tokens == tuple(PAIR[4:])
    parts, covered = split(tokens, FIRST, 30.0, rest=True)
    assert parts[2] == Part((at(2), 4, 5), pytest.approx(2), 30.0) and covered == 30.0


@pytest.mark.parametrize(
    ("tokens", "end"), [([at(0), 1, at(4)], 4.0), ([1, 2], 7.5), ([at(0), 1], 7.5), ([], 7.5)]
)
def test_without_a_pair_the_window_is_one_segment(tokens, end):
    parts, covered = split(tokens, FIRST, 7.5, rest=False)
    assert parts == [Part(tuple(tokens), 0.0, pytest.approx(end))] and covered == 7.5
