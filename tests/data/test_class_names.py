"""Classes are matched by name: a permutation or a subset is mapped, anything else is refused."""

import numpy as np
import pytest

from mmjax.data.class_names import label_map, mapped, widest


@pytest.mark.parametrize(
    ("own", "known", "want"),
    [
        (["green", "red"], ["blue", "green", "red"], [1, 2]),
        (["b", "a"], ["a", "b"], [1, 0]),
        (["a", "b"], ["a", "b"], None),
        (["a"], ["a", "b"], None),  # the numbers are the same
        (None, ["a"], None),
        (["a"], None, None),
    ],
)
def test_what_can_be_mapped_is(own, known, want):
    found = label_map(own, known, "x", "y")
    assert found is None if want is None else found.tolist() == want
    if want:
        assert found.dtype == np.int64


def test_what_cannot_is_refused_by_name():
    with pytest.raises(ValueError, match="'pink' of the source is not among those of the model"):
        label_map(["red", "pink"], ["blue", "red"], "the source", "the model")
    with pytest.raises(ValueError, match="'red' comes twice in the model"):
        label_map(["blue", "red"], ["red", "red", "blue"], "the source", "the model")


def test_a_name_that_comes_twice_is_refused_only_if_it_is_needed():
    known = ["crane", "maillot", "crane", "dog"]  # as in the names of ImageNet
    assert label_map(["dog", "maillot"], known, "x", "y").tolist() == [3, 1]
    with pytest.raises(ValueError, match="'crane' comes twice"):
        label_map(["dog", "crane"], known, "x", "y")


def test_no_label_stays_none():
    assert mapped(np.array([0, -1, 1]), np.array([5, 7])).tolist() == [5, -1, 7]
    assert mapped(np.array([0, -1]), None).tolist() == [0, -1]


def test_the_widest_of_several_lists_has_the_names_of_all():
    assert widest([["b", "a"], ["a", "c", "b"], ["c"]]) == ["a", "c", "b"]
    assert widest([["a", "b"], ["b", "a"]]) == ["a", "b"]
    assert widest([["a", "b"], ["c"]]) is None
    assert widest([]) is None
