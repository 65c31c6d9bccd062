"""Separability and treatments of the modality gap against closed forms; the evaluator."""

import numpy as np
import pytest

from mmjax.evals.embedding_health import modality_gap
from mmjax.evals.gap_treatments import TREATMENTS, linear_separability, unit

RNG = np.random.default_rng(0)


def test_separability_of_what_is_apart_of_what_is_mixed_and_of_a_known_overlap():
    x, y = RNG.normal(size=(2, 4000, 3))
    assert linear_separability(x, y) == pytest.approx(0.5, abs=0.02)
    assert linear_separability(x, y + [[20, 0, 0]]) == 1.0
    # Gaussians d apart along one axis: the best plane is right with probability Phi(d / 2).
    assert linear_separability(x, y + [[0, 2, 0]]) == pytest.approx(0.8413, abs=0.01)
    # More dimensions than embeddings: fitting them all shows nothing on the other half.
    x, y = RNG.normal(size=(2, 40, 300))
    assert linear_separability(x, y) < 0.8
    with pytest.raises(ValueError, match="separability of 3 and 40 embeddings .* four or more"):
        linear_separability(x[:3], y)


def test_treatments_close_the_gap_they_are_fitted_on():
    image = unit(RNG.normal(size=(300, 6)) + 1.0)
    text = unit(RNG.normal(size=(300, 6)) - 1.0)
    embeds = image, text
    assert modality_gap(*embeds) > 0.8
    for name in ("shift", "center", "standardize"):
        assert modality_gap(*TREATMENTS[name](embeds, embeds)) == pytest.approx(0, abs=1e-9)
    standard = TREATMENTS["standardize"](embeds, embeds)
    np.testing.assert_allclose(standard[1].std(axis=0), 1, rtol=1e-9)
    gap = image.mean(0) - text.mean(0)
    for x in TREATMENTS["project"](embeds, embeds):
        np.testing.assert_allclose(x @ gap, 0, atol=1e-9)
    np.testing.assert_array_equal(TREATMENTS["none"](embeds, embeds)[0], image)
    # Fitted on others: a constant is taken off, whatever the embeddings are.
    moved = TREATMENTS["center"](embeds, (image + 3.0, text))
    np.testing.assert_allclose(moved[0], image + 3.0 - image.mean(0), atol=1e-12)
