import numpy as np

from mmjax.losses.masked import masked_ids, masked_values

RNG = np.random.default_rng(0)
HIDDEN = RNG.random((2, 5)) < 0.5


def test_values_by_loops():
    prediction, target = RNG.normal(size=(2, 2, 5, 6)).astype(np.float32)
    terms = []
    for b, i in np.argwhere(HIDDEN):
        patch = (target[b, i] - target[b, i].mean()) / np.sqrt(target[b, i].var() + 1e-6)
        terms.append(np.mean((prediction[b, i] - patch) ** 2))
    np.testing.assert_allclose(masked_values(prediction, target, HIDDEN), np.mean(terms), 1e-5)
    assert masked_values(prediction, target, np.zeros_like(HIDDEN)) == 0


def test_ids_by_loops():
    logits = RNG.normal(size=(2, 5, 7)).astype(np.float32)
    ids = RNG.integers(0, 7, (2, 5), np.int32)
    terms = [
        np.log(np.exp(logits[b, i]).sum()) - logits[b, i, ids[b, i]] for b, i in np.argwhere(HIDDEN)
    ]
    np.testing.assert_allclose(masked_ids(logits, ids, HIDDEN), np.mean(terms), 1e-5)
