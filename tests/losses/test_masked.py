import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses.masked import (
    distilled_ids,
    mask_words,
    masked_ids,
    masked_probs,
    masked_values,
)
from mmjax.system import average

RNG = np.random.default_rng(0)
MASKED = np.array([[0, 1, 1, 1, 0], [1, 0, 0, 1, 0]], bool)


def check(found, terms):
    """A row's value is the mean over its own masked tokens; the batch's, over all of them."""
    np.testing.assert_array_equal(found.weight, MASKED.sum(1))
    own = np.split(terms, np.cumsum(MASKED.sum(1))[:-1])
    np.testing.assert_allclose(found.value, [np.mean(row) for row in own], 1e-5)
    np.testing.assert_allclose(average(found)[0], np.mean(terms), 1e-5)


def test_values_by_loops():
    prediction, target = RNG.normal(size=(2, 2, 5, 6)).astype(np.float32)
    terms = []
    for b, i in np.argwhere(MASKED):
        patch = (target[b, i] - target[b, i].mean()) / np.sqrt(target[b, i].var() + 1e-6)
        terms.append(np.mean((prediction[b, i] - patch) ** 2))
    check(masked_values(prediction, target, MASKED), terms)
    nothing = masked_values(prediction, target, np.zeros_like(MASKED))
    assert average(nothing) == (0.0, False)


def test_ids_by_loops():
    logits = RNG.normal(size=(2, 5, 7)).astype(np.float32)
    ids = RNG.integers(0, 7, (2, 5), np.int32)
    terms = [
        np.log(np.exp(logits[b, i]).sum()) - logits[b, i, ids[b, i]] for b, i in np.argwhere(MASKED)
    ]
    check(masked_ids(logits, ids, MASKED), terms)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_distilled_ids_by_loops(alpha):
    logits, teacher = RNG.normal(size=(2, 2, 5, 7)).astype(np.float32)
    ids, terms = RNG.integers(0, 7, (2, 5), np.int32), []
    for b, i in np.argwhere(MASKED):
        target = alpha * np.exp(teacher[b, i]) / np.exp(teacher[b, i]).sum()
        target[ids[b, i]] += 1 - alpha
        terms.append(target @ (np.log(np.exp(logits[b, i]).sum()) - logits[b, i]))
    logits, teacher = jnp.asarray(logits), jnp.asarray(teacher)
    check(distilled_ids(logits, teacher, ids, MASKED, alpha), terms)


def masks(word=None, rows=2000):
    """Masked texts [rows, 6] of words 10, ..., 15, of which the first and the last are special."""
    text = jnp.broadcast_to(jnp.arange(10, 16, dtype=jnp.int32), (rows, 6))
    maskable = jnp.broadcast_to(jnp.array([0, 1, 1, 1, 1, 0], bool), (rows, 6))
    keys = jax.random.split(jax.random.key(0), rows)
    if word is not None:
        word = jnp.broadcast_to(jnp.array(word, jnp.int32), (rows, 6))
    found = mask_words(text, maskable, keys, vocab_size=1000, mask_id=3, rate=0.3, word=word)
    return np.asarray(text), *jax.device_get(found), keys


def test_words_are_masked_as_often_as_the_paper_says():
    text, new, masked, keys = masks()
    assert not masked[:, [0, 5]].any() and (new == text)[~masked].all()
    middle = masked[:, 1:5]  # 8,000 draws: three standard deviations are 0.015
    np.testing.assert_allclose(middle.mean(0), 0.3, atol=0.031)
    of_masked = new[masked]
    np.testing.assert_allclose((of_masked == 3).mean(), 0.8, atol=0.025)
    kept = (of_masked == text[masked]).mean()
    np.testing.assert_allclose(kept, 0.1, atol=0.02)
    # A row depends on its own key alone.
    one = mask_words(
        jnp.asarray(text[7:8]),
        jnp.ones((1, 6), bool),
        keys[7:8],
        vocab_size=1000,
        mask_id=3,
        rate=0.3,
    )
    np.testing.assert_array_equal(one[1][0, 1:5], masked[7, 1:5])


def test_the_tokens_of_a_word_are_masked_together():
    _, new, masked, _ = masks(word=[0, 1, 1, 1, 2, 3])
    assert (masked[:, 1:4].all(1) == masked[:, 1:4].any(1)).all()
    np.testing.assert_allclose(masked[:, 1].mean(), 0.3, atol=0.031)
    assert 0.05 < (masked[:, 1] & masked[:, 4]).mean() < 0.13  # words are independent: 0.09
    differ = (new[:, 1:4] == 3).any(1) & (new[:, 1:4] != 3).any(1) & masked[:, 1]
    assert differ.any()  # what replaces a token is drawn for each


def test_regions_in_closed_form():
    """Regression is the squared distance; soft labels give the KL divergence of the two."""
    prediction, target = RNG.normal(size=(2, 2, 5, 6)).astype(np.float32)
    terms = [np.mean((prediction[b, i] - target[b, i]) ** 2) for b, i in np.argwhere(MASKED)]
    check(masked_values(prediction, target, MASKED, normalize=False), terms)

    logits = RNG.normal(size=(2, 5, 4)).astype(np.float32)
    labels = RNG.dirichlet(np.ones(4), (2, 5)).astype(np.float32)
    labels[0, 1] = [0.0, 1.0, 0.0, 0.0]
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    terms = [
        sum(t * np.log(t / q) for t, q in zip(labels[b, i], p[b, i]) if t)
        for b, i in np.argwhere(MASKED)
    ]
    check(masked_probs(logits, labels, MASKED), terms)
    # The labels themselves have no divergence; one class of probability 1 is an id.
    np.testing.assert_allclose(
        masked_probs(np.log(labels + 1e-9), labels, MASKED).value, 0, atol=1e-6
    )
    ids = RNG.integers(0, 4, (2, 5), np.int32)
    hard = masked_probs(logits, np.eye(4, dtype=np.float32)[ids], MASKED)
    np.testing.assert_allclose(hard.value, masked_ids(logits, ids, MASKED).value, 1e-5)
    # The gradient is that of the cross-entropy: p - labels, of each row's masked positions.
    gradient = jax.grad(lambda x: masked_probs(x, labels, MASKED).value.sum())(logits)
    np.testing.assert_allclose(
        gradient,
        np.where(MASKED[..., None], p - labels, 0) / MASKED.sum(1)[:, None, None],
        atol=1e-6,
    )
