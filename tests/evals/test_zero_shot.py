"""Zero-shot classifier and classification metrics against loops and cases worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.evals import zero_shot
from mmjax.evals.zero_shot import (
    classification_metrics,
    classifier_weights,
    ensemble_weights,
)


def test_ensemble_gives_every_prompt_one_vote_whatever_its_length():
    # Two prompts at right angles, one of them 100 times as long: the mean direction is 45 degrees.
    weights = ensemble_weights(np.array([[[100.0, 0.0], [0.0, 1.0]], [[-3.0, 0.0], [-1.0, 0.0]]]))
    np.testing.assert_allclose(weights, [[0.5**0.5, 0.5**0.5], [-1.0, 0.0]], atol=1e-6)


def test_classifier_embeds_each_class_with_each_prompt():
    seen = []

    def embed(texts):
        seen.extend(texts)
        return np.array([[1.0, 0.0] if "cat" in t else [0.0, 1.0] for t in texts])

    weights = classifier_weights(embed, ["cat", "dog {x}"], ["{}", "a photo of a {}."])
    assert seen == ["cat", "a photo of a cat.", "dog {x}", "a photo of a dog {x}."]
    np.testing.assert_allclose(weights, np.eye(2))


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**31))
def test_metrics_equal_loops_with_ties_against_the_model(count, classes, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (count, classes)).astype(np.float32)
    labels = rng.integers(0, classes, count)
    places = []
    for row, label in zip(scores, labels):
        order = sorted(range(classes), key=lambda c: (-row[c], c == label))
        places.append(order.index(label))
    by_class = {c: [p < 1 for p, y in zip(places, labels) if y == c] for c in set(labels)}
    metrics = classification_metrics(scores, labels)
    assert metrics["top1"] == pytest.approx(sum(p < 1 for p in places) / count)
    assert metrics["top5"] == pytest.approx(sum(p < 5 for p in places) / count)
    assert metrics["mean_per_class"] == pytest.approx(
        sum(sum(v) / len(v) for v in by_class.values()) / len(by_class)
    )


def test_chunks_of_the_scores_predict_as_the_whole(monkeypatch):
    rng = np.random.default_rng(0)
    embed, weights = (rng.integers(-2, 3, (n, 3)).astype(np.float32) for n in (23, 7))  # ties
    embed[4, 1], labels = np.nan, rng.integers(0, 7, 23)
    monkeypatch.setattr(zero_shot, "CHUNK", 5 * 7 + 1)
    place, best = zero_shot.predict(embed, weights, labels)
    scores = embed @ weights.T
    rows = np.delete(np.arange(23), 4)
    want = [
        1 + sum(s >= row[y] for c, s in enumerate(row) if c != y) for row, y in zip(scores, labels)
    ]
    assert place[4] == 0 and place[rows].tolist() == [want[i] for i in rows]
    np.testing.assert_array_equal(best, scores.argmax(1))


def test_bad_scores_and_labels_are_errors():
    with pytest.raises(ValueError, match="not finite"):
        classification_metrics(np.array([[np.nan, 0.0]]), np.array([0]))
    with pytest.raises(ValueError, match="0 to 2 and the classifier has 2"):
        classification_metrics(np.zeros((2, 2)), np.array([0, 2]))
