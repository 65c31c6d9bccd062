import numpy as np

from mmjax.losses.masked import masked_ids, masked_values
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
