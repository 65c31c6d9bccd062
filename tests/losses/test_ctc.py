"""CTC beside a sum over all paths."""

import itertools

import jax
import numpy as np
import pytest

from mmjax.decode.ctc import best_path, prefix_beam_search
from mmjax.losses.ctc import ctc_labels, ctc_loss, needed_frames

BLANK = 3


def log_softmax(x):
    return np.asarray(jax.nn.log_softmax(x))


def collapse(path):
    return tuple(token for token, _ in itertools.groupby(path) if token != BLANK)


def all_texts(log_p):
    """{text: sum of the probabilities of its paths}."""
    found = {}
    for path in itertools.product(range(BLANK + 1), repeat=len(log_p)):
        p = np.exp(sum(log_p[t, token] for t, token in enumerate(path)))
        found[collapse(path)] = found.get(collapse(path), 0) + p
    return found


LABELS = np.array([[0, 1, 0], [2, 2, 0], [1, 1, 1], [0, 0, 0], [2, 0, 0]], np.int32)
COUNTS = [3, 2, 3, 0, 1]  # the third has repeats for which its four frames are too few
FRAMES = [5, 4, 4, 3, 2]


def batch():
    logits = np.random.default_rng(0).normal(size=(5, 5, BLANK + 1), scale=2).astype(np.float32)
    frames = np.arange(5)[None] < np.array(FRAMES)[:, None]
    return logits, frames, LABELS, np.arange(3)[None] < np.array(COUNTS)[:, None]


def test_the_loss_is_the_sum_over_all_paths():
    logits, frames, labels, mask = batch()
    losses = ctc_loss(logits, frames, labels, mask)
    np.testing.assert_array_equal(losses["ctc"].weight, [3, 2, 0, 0, 1])
    np.testing.assert_array_equal(losses["ctc_too_long"].value, [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(losses["ctc_too_long"].weight, [1, 1, 1, 0, 1])
    for row in (0, 1, 4):
        count = COUNTS[row]
        p = all_texts(log_softmax(logits[row, : FRAMES[row]]))[tuple(labels[row, :count])]
        np.testing.assert_allclose(losses["ctc"].value[row], -np.log(p) / count, rtol=1e-5)


def test_the_frames_a_text_needs():
    labels, mask = batch()[2:]
    np.testing.assert_array_equal(needed_frames(labels, mask), [3, 3, 5, 0, 1])


def test_a_text_that_does_not_fit_has_no_gradient():
    logits, *rest = batch()
    grad = jax.grad(lambda x: ctc_loss(x, *rest)["ctc"].value.sum())(logits)
    assert np.isfinite(grad).all() and not grad[2].any()
    assert np.abs(grad[0]).max() > 1e-3 and not grad[4, 2:].any()  # nor have invalid frames


def test_labels_are_between_begin_and_end():
    text = np.array([[1, 7, 8, 2, 0], [1, 9, 2, 0, 0], [1, 7, 2, 0, 0]], np.int32)
    given = {"text": text, "text_mask": text > 0, "text_present": np.array([True, True, False])}
    labels, mask = ctc_labels(given)
    np.testing.assert_array_equal(np.where(mask, labels, 0), [[7, 8, 0], [9, 0, 0], [0, 0, 0]])


def test_the_best_path_collapses():
    path = np.array([[0, 0, BLANK, 0, 1, 2], [BLANK, 2, 2, BLANK, 1, 1], [BLANK] * 6])
    logits = np.where(np.eye(BLANK + 1)[path] > 0, 3.0, 0.0).astype(np.float32)
    frames = np.arange(6)[None] < np.array([[6], [4], [6]])
    tokens, lengths, scores = best_path(logits, frames)
    np.testing.assert_array_equal(lengths, [4, 1, 0])
    np.testing.assert_array_equal(tokens[:2, :4], [[0, 0, 1, 2], [2, 0, 0, 0]])
    one = 3 - np.log(np.exp(3) + BLANK)
    np.testing.assert_allclose(scores, one * np.array([6, 4, 6]), rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_prefix_beams_find_the_sums_over_all_paths(seed):
    log_p = log_softmax(np.random.default_rng(seed).normal(size=(4, BLANK + 1)).astype(np.float32))
    want = sorted(all_texts(log_p).items(), key=lambda item: -item[1])
    found = prefix_beam_search(log_p, beams=1000)
    assert len(found) == len(want)
    for (text, score), (wanted, p) in zip(found[:20], want):
        assert text == wanted
        np.testing.assert_allclose(score, np.log(p), rtol=1e-5)


def test_a_sum_of_paths_beats_the_best_path():
    """Graves's example: the best path is blank, and the most probable text is not."""
    log_p = np.log(np.array([[0.4, 0.0, 0.0, 0.6]] * 2) + 1e-30).astype(np.float32)
    text, score = prefix_beam_search(log_p, beams=2, candidates=1)[0]
    assert text == (0,)
    np.testing.assert_allclose(np.exp(score), 0.64, rtol=1e-5)
    assert best_path(log_p[None], np.ones((1, 2), bool))[1][0] == 0
