"""Balancing answers within each way to ask, against counts."""

import collections

import pytest

from mmjax.data.sources.balanced import Balanced


class Questions:
    """So many of each (way to ask, answer)."""

    name, class_names = "questions", ["no", "yes"]

    def __init__(self, counts):
        self.rows = [
            {"captions": [f"{way} thing number {i}?"], "label": label, "key": f"{way}{label}{i}"}
            for (way, label), n in counts.items()
            for i in range(n)
        ]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def test_within_each_way_every_answer_comes_equally_often():
    source = Questions({("is this a", 0): 7, ("is this a", 1): 3, ("who drew this", 1): 4})
    balanced = Balanced(source, words=3, max_repeats=20)
    found = collections.Counter()
    for i in range(len(balanced)):
        example = balanced[i]
        found[" ".join(example["captions"][0].split()[:3]), example["label"]] += 1
    assert found == {("is this a", 0): 7, ("is this a", 1): 7, ("who drew this", 1): 4}
    assert {balanced[i]["key"] for i in range(len(balanced))} == {r["key"] for r in source.rows}


def test_no_example_comes_more_often_than_allowed():
    balanced = Balanced(Questions({("is this a", 0): 100, ("is this a", 1): 2}), 3, 5)
    keys = collections.Counter(balanced[i]["key"] for i in range(len(balanced)))
    assert len(balanced) == 110 and max(keys.values()) == 5


def test_a_source_without_answers_is_refused():
    source = Questions({("is this a", 0): 1})
    del source.rows[0]["label"]
    with pytest.raises(ValueError, match="Example 0 of questions has no label"):
        Balanced(source, 3, 5)
