"""Noisy captions: the asked fraction has captions of others, and nothing else changes."""

import pytest

from mmjax.data.source import Source
from mmjax.data.sources.swapped import open_swapped


class Named(Source):
    """Ten examples with captions, names and an image."""

    class_names, name = ["even", "odd"], "named"

    def __len__(self):
        return 10

    def __getitem__(self, i):
        texts = {"captions": [f"c{i}"], "names": [f"n{i}"], "languages": ["de"]}
        return {"image": bytes([i]), "label": i % 2, "key": str(i), **texts}


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.3, 3), (1.0, 10)])
def test_that_fraction_is_swapped(fraction, count):
    found = open_swapped(Named(), fraction, seed=3)
    again = open_swapped(Named(), fraction, seed=3)
    texts = []
    for i in range(len(found)):
        example = found[i]
        assert example["image"] == bytes([i]) and example["label"] == i % 2
        assert example["swapped"] == (example["captions"] != [f"c{i}"])
        assert example["names"][0][1:] == example["captions"][0][1:]
        assert found.meta(i) == {k: v for k, v in again[i].items() if k != "image"}
        texts += example["captions"]
    assert sorted(texts) == sorted(f"c{i}" for i in range(10))  # none is lost or repeated
    assert sum(found[i]["swapped"] for i in range(10)) == count
    assert found.class_names == ["even", "odd"]


def test_a_larger_fraction_swaps_the_same_examples_and_more():
    few, many = (open_swapped(Named(), fraction) for fraction in (0.3, 0.6))
    sets = [{i for i in range(10) if s.meta(i)["swapped"]} for s in (few, many)]
    assert sets[0] < sets[1]


@pytest.mark.parametrize("fraction", [-0.1, 1.5, 0.1])
def test_impossible_fractions_are_refused(fraction):
    with pytest.raises(ValueError, match=f"has fraction {fraction} of 10 examples"):
        open_swapped(Named(), fraction)


def test_equal_captions_are_not_swapped_and_none_are_refused():
    class Paired(Named):
        """Two examples have each caption."""

        def __getitem__(self, i):
            return {**super().__getitem__(i), "captions": [f"c{i // 2}"], "names": [f"n{i}"]}

    found = open_swapped(Paired(), 1.0, seed=1)
    flags = [found[i]["swapped"] for i in range(10)]
    assert flags == [found[i]["captions"] != [f"c{i // 2}"] for i in range(10)]
    assert not all(flags) and any(flags)

    class Bare(Named):
        def __getitem__(self, i):
            return {"image": bytes([i]), "label": i % 2}

    with pytest.raises(ValueError, match="exchanges captions, and named has none"):
        open_swapped(Bare(), 0.5)
