"""Labels renumbered by class name: each example keeps its class."""

import numpy as np
import pytest

from mmjax.data.source import Source
from mmjax.data.sources.renumbered import renumbered


class Colors(Source):
    """Three colors, numbered; then one without a label, and one labeled by its name."""

    name, class_names = "colors", ["blue", "green", "red"]

    def __len__(self):
        return 5

    def __getitem__(self, i):
        label = [0, np.int64(1), 2, -1, "red"][i]
        return {"image": b"x", "label": label, "key": f"{i}"}


def test_every_example_keeps_its_class():
    names = ["red", "pink", "blue", "green"]
    source = renumbered(Colors(), names, "the head")
    assert source.class_names == names and len(source) == 5 and source.name == "colors"
    found = [source.meta(i)["label"] for i in range(5)]
    assert found == [2, 3, 0, -1, "red"]
    assert source[1] == {"image": b"x", "label": 3, "key": "1"}
    assert [names[label] for label in found[:3]] == Colors.class_names


def test_what_need_not_change_does_not():
    source = Colors()
    assert renumbered(source, ["blue", "green", "red"], "x") is source
    nameless = Colors()
    nameless.class_names = None
    given = renumbered(nameless, ["red", "blue", "green"], "x")
    assert given.class_names == ["red", "blue", "green"] and given[2]["label"] == 2


def test_what_cannot_be_matched_is_refused():
    with pytest.raises(ValueError, match="'green' of colors is not among those of the head"):
        renumbered(Colors(), ["red", "blue"], "the head")
    few = Colors()
    few.class_names = ["blue", "green"]
    with pytest.raises(ValueError, match="the label 2 is none of its 2 classes"):
        renumbered(few, ["green", "blue"], "x")[2]
