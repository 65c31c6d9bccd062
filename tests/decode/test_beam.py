"""Beam search against every text there is, and against a slow one in plain Python."""

import itertools

import numpy as np
import pytest
from markov import NONE, Markov, log_softmax

from mmjax.decode.generate import make_generate
from mmjax.decode.prompts import pad_prompts
from mmjax.decode.settings import Settings

PROMPTS = [[1, 2], [3], [2, 0, 1]]


def all_texts(model, prompt, limit, ends, penalty, vocab):
    """(score, tokens) of every text that ends, or is cut at `limit`, best first."""
    found = []

    def grow(tokens, score):
        if tokens and (tokens[-1] in ends or len(tokens) == limit):
            found.append((score / len(tokens) ** penalty, tuple(tokens)))
            return
        log_probs = log_softmax(model.logits([*prompt, *tokens]))
        for token in range(vocab):
            grow([*tokens, token], score + log_probs[token])

    grow([], 0.0)
    return sorted(found, reverse=True)


@pytest.mark.parametrize(("penalty", "ends"), [(0.0, (4,)), (1.0, (4, 2)), (1.7, ()), (2.0, (0,))])
def test_a_beam_as_wide_as_all_texts_finds_the_best_of_them(penalty, ends):
    model, limit, vocab = Markov(5, seed=1), 3, 5
    # Wide enough to keep every text under way; more than the vocabulary needs a second model.
    wide = WideVocabulary(model, 5 * 5)
    settings = Settings(limit, end_ids=ends, beams=25, length_penalty=penalty)
    found = make_generate(wide, settings)(NONE, pad_prompts(PROMPTS))
    for row, prompt in enumerate(PROMPTS):
        expected = all_texts(model, prompt, limit, ends, penalty, vocab)[:10]
        for place, (score, tokens) in enumerate(expected):
            length = int(found.lengths[row, place])
            assert tuple(found.tokens[row, place, :length].tolist()) == tokens
            np.testing.assert_allclose(found.scores[row, place], score, rtol=1e-4)


class WideVocabulary(Markov):
    """The same model with tokens that never come."""

    def __init__(self, model, vocab):
        self.window, small = model.window, len(model.table)
        self.table = np.full((vocab,) * 3, -1e9, np.float32)
        self.table[:small, :small, :small] = model.table


def slow_beams(model, prompt, s):
    """Diverse beam search with lists; log-probabilities of the model, one prompt."""
    size = s.beams // s.beam_groups
    live = [[((), 0.0)] for _ in range(s.beam_groups)]
    ended = [[] for _ in range(s.beam_groups)]
    for _ in range(s.max_new_tokens):
        taken = []
        for g in range(s.beam_groups):
            candidates = []
            for tokens, score in live[g]:
                log_probs = log_softmax(model.logits([*prompt, *tokens]))
                for token, lp in enumerate(log_probs):
                    if token in s.end_ids:
                        length = (len(tokens) + 1) ** s.length_penalty
                        ended[g].append(((score + lp) / length, (*tokens, token)))
                    else:
                        wish = score + lp - s.diversity_penalty * taken.count(token)
                        candidates.append((wish, (*tokens, token), score + lp))
            best = sorted(candidates, reverse=True)[:size]
            live[g] = [(tokens, score) for _, tokens, score in best]
            taken += [tokens[-1] for _, tokens, _ in best]
    final = []
    for g in range(s.beam_groups):
        cut = [(v / s.max_new_tokens**s.length_penalty, t) for t, v in live[g]]
        final += sorted(ended[g] + cut, reverse=True)[:size]
    return sorted(final, reverse=True)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(6, beams=3, end_ids=(5,)),
        Settings(5, beams=6, beam_groups=3, diversity_penalty=0.7, end_ids=(5, 1)),
        Settings(5, beams=4, beam_groups=2, diversity_penalty=3.0, length_penalty=0.0),
        Settings(7, beams=2, end_ids=(5,), length_penalty=0.5),
    ],
)
def test_beams_are_those_of_the_slow_search(settings):
    model = Markov(9, seed=2)
    found = make_generate(model, settings)(NONE, pad_prompts(PROMPTS))
    for row, prompt in enumerate(PROMPTS):
        for place, (score, tokens) in enumerate(slow_beams(model, prompt, settings)):
            length = int(found.lengths[row, place])
            assert tuple(found.tokens[row, place, :length].tolist()) == tokens
            np.testing.assert_allclose(found.scores[row, place], score, rtol=1e-4, atol=1e-5)


def test_a_diversity_penalty_makes_groups_differ():
    model = Markov(9, seed=3)
    alike, other = (
        make_generate(model, Settings(4, beams=3, beam_groups=3, diversity_penalty=penalty))(
            NONE, pad_prompts(PROMPTS)
        ).tokens
        for penalty in (0.0, 50.0)
    )
    assert all((row == row[0]).all() for row in np.asarray(alike))
    for row in np.asarray(other):
        assert all((a != b).all() for a, b in itertools.combinations(row, 2))
