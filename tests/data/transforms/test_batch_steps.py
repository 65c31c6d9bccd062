"""Labels, Mixup and captions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmjax.data.transforms.parse import parse, parse_batch


def test_label():
    transform = parse("label", class_names=["a", "b"])
    for value in (1, "b", b"b", np.int64(1)):
        out = transform({"label": value}, None)["label"]
        assert out == 1 and out.dtype == np.int32
    for value in (2, -1, "c", None):
        with pytest.raises(ValueError, match="2 classes"):
            transform({"label": value}, None)
    assert parse("label")({"label": 7}, None)["label"] == 7


def test_multi_hot():
    transform = parse("multi_hot(4)")
    out = transform({"labels": np.array([0, 2]), "key": "a"}, None)
    np.testing.assert_array_equal(out["label_probs"], np.float32([1, 0, 1, 0]))
    assert set(out) == {"key", "label_probs"}
    assert not transform({"labels": []}, None)["label_probs"].any()
    for labels in ([4], [-1, 2]):
        with pytest.raises(ValueError, match="'a' has the labels .*multi_hot 4 classes"):
            transform({"labels": labels, "key": "a"}, None)


@settings(max_examples=40)
@given(alpha=st.floats(0.05, 5), seed=st.integers(0, 999), n=st.sampled_from([2, 4, 8]))
def test_mixup_mixes_labels_as_it_mixes_images(alpha, seed, n):
    """Images that hold 20 · their label: the mixed one holds 20 · the expected label."""
    label = np.random.default_rng(seed).integers(0, 10, n).astype(np.int32)
    image = (20 * label)[:, None, None, None].astype(np.uint8) * np.ones((1, 2, 3, 3), np.uint8)
    batch = {"image": image, "label": label}
    out = parse_batch(f"mixup({alpha}, 10)")(batch, np.random.default_rng(seed))
    probs = out["label_probs"]
    assert out["image"].dtype == np.uint8 and probs.dtype == np.float32
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-6)
    expected = 20 * (probs @ np.arange(10, dtype=np.float32))
    assert np.abs(out["image"] - expected[:, None, None, None]).max() <= 0.501
    np.testing.assert_array_equal(out["label"], label)
    # every example keeps its share, and every example is some other's partner
    np.testing.assert_allclose(probs.sum(0), np.bincount(label, minlength=10), atol=1e-5)


def test_mixup_shares_follow_beta():
    batch = {"image": np.zeros((2, 1, 1, 3), np.uint8), "label": np.array([0, 1], np.int32)}
    transform, rng, shares = parse_batch("mixup(0.4, 2)"), np.random.default_rng(0), []
    while len(shares) < 500:
        shares.append(transform(batch, rng)["label_probs"][0, 0])
    assert stats.kstest(shares, "beta", (0.4, 0.4)).pvalue > 1e-3


def test_mixup_goes_on_from_soft_labels_and_checks_hard_ones():
    soft = np.array([[0.5, 0.5], [0.0, 1.0]], np.float32)
    batch = {"image": np.zeros((2, 1, 1, 3), np.uint8), "label_probs": soft}
    for seed in range(9):
        out = parse_batch("mixup(1.0, 2)")(batch, np.random.default_rng(seed))["label_probs"]
        np.testing.assert_allclose(out.sum(0), [0.5, 1.5], atol=1e-6)
    batch = {"image": batch["image"], "label": np.array([0, 5], np.int32)}
    with pytest.raises(ValueError, match="mixes pairs and a process has 1 rows"):
        parse_batch("mixup(1.0, 2)")({k: v[:1] for k, v in batch.items()}, None)
    with pytest.raises(ValueError, match="num_classes=3"):
        parse_batch("mixup(1.0, 3)")(batch, np.random.default_rng(0))


def test_longest_caption_without_some_words():
    step = parse("longest_caption | drop_words(('animal', 'Animals'))")
    example = {"captions": ["a cat", "Animal, the cat; animals-like animality", ""]}
    assert step(example, None)["caption"] == ", the cat; -like animality"
    with pytest.raises(ValueError, match="drop_words comes after"):
        parse("drop_words(('a',))")(example, None)
