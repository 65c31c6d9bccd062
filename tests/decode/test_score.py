"""Log-probabilities of given continuations."""

import itertools

import jax
import numpy as np
import pytest
import scipy.special
from markov import NONE, Markov
from tiny_language import LLAMA, PROMPTS, language_model

from mmjax.decode.prompts import pad_prompts
from mmjax.decode.score import make_score
from mmjax.layers.platform import compiling_for

TEXTS = [[4, 5, 6, 2], [7], [4, 2], [29, 0, 1]]


def padded(texts):
    batch = pad_prompts(texts)
    longest = max(map(len, texts))
    return batch["text"][:, :longest], batch["text_mask"][:, :longest]


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("decoder", [{}, LLAMA])
def test_scores_are_those_of_the_whole_text_read_at_once(decoder, platform):
    model, params = language_model(**decoder)
    with compiling_for(platform):
        found = make_score(model, *padded(TEXTS))({"params": params}, pad_prompts(PROMPTS))
    assert found.shape == (len(PROMPTS), len(TEXTS))
    pairs = list(itertools.product(range(len(PROMPTS)), range(len(TEXTS))))
    whole = pad_prompts([PROMPTS[row] + TEXTS[column] for row, column in pairs])
    logits = jax.jit(lambda p: model.apply({"params": p}, whole))(params)["text_logits"]
    log_p = scipy.special.log_softmax(np.asarray(logits, float), axis=-1)
    for (row, column), log_p_text in zip(pairs, log_p):
        first = len(PROMPTS[row]) - 1
        said = [log_p_text[first + i, token] for i, token in enumerate(TEXTS[column])]
        np.testing.assert_allclose(found[row, column], sum(said), rtol=1e-4, atol=1e-3)


def test_all_texts_of_a_length_are_together_certain():
    texts = [list(text) for text in itertools.product(range(5), repeat=3)]
    found = make_score(Markov(5), *padded(texts))(NONE, pad_prompts(PROMPTS))
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-5)
    first = make_score(Markov(5), *padded([[0], [1], [2], [3], [4]]))(NONE, pad_prompts(PROMPTS))
    marginal = np.exp(found).reshape(len(PROMPTS), 5, 25).sum(2)
    np.testing.assert_allclose(np.exp(first), marginal, rtol=1e-5)


def test_what_cannot_be_scored():
    with pytest.raises(ValueError, match="2 texts to choose from, or one of them is empty"):
        make_score(Markov(5), np.ones((2, 3), int), np.array([[1, 1, 0], [0, 0, 0]], bool))
    with pytest.raises(ValueError, match="window of 6"):
        make_score(Markov(5, window=6), *padded(TEXTS))(NONE, pad_prompts(PROMPTS))
    with pytest.raises(ValueError, match="Prompt 1 is empty"):
        batch = pad_prompts(PROMPTS)
        batch["text_mask"][1] = False
        make_score(Markov(5), *padded(TEXTS))(NONE, batch)
