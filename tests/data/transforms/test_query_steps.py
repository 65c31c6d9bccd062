"""Queries of an image's regions: positives, negatives, padding, and boxes that stay theirs."""

import numpy as np
import pytest

from mmjax.data.regions import Regions
from mmjax.data.text.train_words import train_words
from mmjax.data.transforms.parse import parse

NAMES = ["red bus", "cat", "dog", "tea", "cup"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_words([*NAMES, "a photo of a"], 64)


def example(labels, **more):
    n = len(labels)
    boxes = np.linspace(0.1, 0.4, n * 2).reshape(n, 2)
    regions = Regions(
        20,
        20,
        np.concatenate([boxes, boxes + 0.3], 1),
        np.asarray(labels, np.int32),
        [None] * n,
        np.zeros(n, bool),
        np.ones(n),
    )
    return {"key": "x", "image": np.zeros((20, 20, 3), np.uint8), "regions": regions, **more}


def run(tokenizer, labels, step, seed=0, names=NAMES, **more):
    chain = parse(f"decode | regions(6) | {step}", tokenizer=tokenizer, class_names=names)
    return chain(example(labels, **more), np.random.default_rng(seed))


def names_of(tokenizer, found):
    return [
        tokenizer.decode(text[mask]) if mask.any() else ""
        for text, mask in zip(found["text"], found["text_mask"], strict=True)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_boxes_keep_their_names_among_random_negatives(tokenizer, seed):
    labels = [3, 0, 3]
    found = run(tokenizer, labels, "name_queries(4, 8)", seed)
    names = names_of(tokenizer, found)
    assert len(set(names)) == 4 and set(names) <= set(NAMES)
    shown = found["box_label"][found["boxes_mask"]]
    assert [names[i] for i in shown] == [NAMES[i] for i in labels]
    assert found["text"].shape == found["text_mask"].shape == (4, 8)
    np.testing.assert_allclose(found["boxes"][:3], example(labels)["regions"].boxes, rtol=1e-6)


def test_negatives_of_the_data_come_first_and_uncertain_ones_never(tokenizer):
    more = {"negative": [4], "not_exhaustive": [1, 2]}
    for seed in range(5):
        found = run(tokenizer, [0], "name_queries(2, 8)", seed, **more)
        assert set(names_of(tokenizer, found)) == {"red bus", "cup"}
        found = run(tokenizer, [0], "name_queries(4, 8)", seed, **more)
        assert set(names_of(tokenizer, found)) == {"red bus", "cup", "tea", ""}
        assert found["text_mask"].any(1).sum() == 3


def test_names_beyond_the_queries_and_boxes_without_a_name_are_left_out(tokenizer):
    found = run(tokenizer, [0, 1, -1, 2], "name_queries(2, 8)")
    names = names_of(tokenizer, found)
    assert found["boxes_mask"].sum() == 2 and not found["boxes_mask"][2]
    for i, name in enumerate(NAMES[k] for k in (0, 1)):
        if name in names:
            assert names[found["box_label"][i]] == name
    assert (found["box_label"][~found["boxes_mask"]] == -1).all()


def test_an_image_without_boxes_has_only_negatives(tokenizer):
    found = run(tokenizer, [], "name_queries(3, 8, ('a photo of a {}',))")
    assert not found["boxes_mask"].any()
    assert all(name.startswith("a photo of a ") for name in names_of(tokenizer, found))


def test_a_chain_without_regions_or_names_is_refused(tokenizer):
    with pytest.raises(ValueError, match="name_queries comes after regions"):
        chain = parse("decode | name_queries(2, 8)", tokenizer=tokenizer, class_names=NAMES)
        chain(example([0]), np.random.default_rng(0))
    with pytest.raises(ValueError, match="names of classes, and the data set has none"):
        run(tokenizer, [0], "name_queries(2, 8)", names=None)
