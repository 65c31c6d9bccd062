"""Hard negatives against their probabilities and against what they must never be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses.matching import hard_negatives, matching_loss, take_rows

ROWS, DIM, SCALE = 6, 4, 5.0
RNG = np.random.default_rng(0)
IMAGE, TEXT = (RNG.normal(size=(ROWS, DIM)).astype(np.float32) for _ in range(2))


def draw(draws, **options):
    return jax.device_get(
        hard_negatives(IMAGE, TEXT, jnp.float32(SCALE), np.float32(draws), **options)
    )


def test_the_draws_follow_the_softmax_of_the_similarities():
    logits = SCALE * IMAGE @ TEXT.T
    find = jax.jit(jax.vmap(lambda d: hard_negatives(IMAGE, TEXT, jnp.float32(SCALE), d)))
    places = (np.arange(4000, dtype=np.float32) + 0.5) / 4000  # the quantiles, not a sample
    draws = np.broadcast_to(places[:, None, None], (4000, ROWS, 2))
    text, image, exists = find(draws)
    assert exists.all()
    for found, scores in ((text, logits), (image, logits.T)):
        for i in range(ROWS):
            p = np.exp(scores[i] - scores[i].max())
            p = p / p.sum() + 1e-4
            p[i] = 0
            counts = np.bincount(found[:, i], minlength=ROWS) / 4000
            np.testing.assert_allclose(counts, p / p.sum(), atol=5e-4)


def test_duplicates_and_incomplete_pairs_are_no_negatives():
    ids = (np.arange(ROWS, dtype=np.int32), np.array([7, 7, 1, 2, 3, 7], np.int32))
    present = np.array([1, 1, 1, 0, 1, 1], bool)
    for u in np.linspace(0, 0.9999999, 50):
        text, image, exists = draw(np.full((ROWS, 2), u), ids=ids, present=present)
        assert exists.tolist() == [True, True, True, False, True, True]
        for found in (text, image):
            assert found[3] == 3
            for i in (0, 1, 5):
                assert found[i] in (2, 4)
            for i in (2, 4):
                assert found[i] in set(range(ROWS)) - {i, 3}


def test_equal_captions_leave_no_negative():
    same = (None, np.zeros(ROWS, np.int32))
    text, image, exists = draw(np.full((ROWS, 2), 0.5), ids=same)
    assert not exists.any()
    np.testing.assert_array_equal(text, np.arange(ROWS))
    np.testing.assert_array_equal(image, np.arange(ROWS))


def test_groups_keep_their_negatives():
    draws = RNG.uniform(size=(ROWS, 2))
    text, image, _ = draw(draws, group=3)
    for found in (text, image):
        np.testing.assert_array_equal(found // 3, np.arange(ROWS) // 3)
    first = hard_negatives(IMAGE[:3], TEXT[:3], jnp.float32(SCALE), np.float32(draws[:3]))
    np.testing.assert_array_equal(text[:3], first[0])
    np.testing.assert_array_equal(take_rows(jnp.asarray(IMAGE), jnp.asarray(text), 3), IMAGE[text])
    with pytest.raises(ValueError, match="groups of 4 rows and the batch has 6"):
        draw(draws, group=4)


def test_the_loss_by_loops():
    logits = RNG.normal(size=(4, 3, 2)).astype(np.float32)
    exists, present = np.array([1, 0, 1, 1], bool), np.array([1, 1, 0, 1], bool)
    found = matching_loss(logits, exists, present)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for i, count in enumerate((3, 1, 0, 3)):
        terms = [-log_p[i, j, int(j == 0)] for j in range(count)]
        assert found["matching"].weight[i] == count
        if count:
            np.testing.assert_allclose(found["matching"].value[i], np.mean(terms), rtol=1e-5)
            right = [log_p[i, j, int(j == 0)] > log_p[i, j, int(j > 0)] for j in range(count)]
            np.testing.assert_allclose(found["matching_accuracy"].value[i], np.mean(right))
