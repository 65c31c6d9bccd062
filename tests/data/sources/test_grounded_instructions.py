"""Instructions about regions: what is asked, who is held out, and where the boxes are written."""

import collections

import numpy as np
import pytest
from rectangles import COLORS, Rectangles, box_in, color_at

from mmjax.data.source import without_media
from mmjax.data.sources.grounded_instructions import (
    TASKS,
    is_unseen,
    open_grounded_instructions,
)
from mmjax.data.text.chat import check_messages
from mmjax.data.text.locations import read_box, read_point
from mmjax.data.transforms.parse import parse


@pytest.mark.parametrize("phrasings", ["known", "unseen"])
@pytest.mark.parametrize(
    "chain",
    [
        "decode",
        "decode | flip(1.0)",
        "decode | resize_long(128, method='nearest') | pad_corner(150)",
    ],
)
def test_the_boxes_of_messages_are_those_of_the_image(phrasings, chain):
    source = open_grounded_instructions(Rectangles(30), 60, phrasings=phrasings)
    write, counts = parse(f"{chain} | write_boxes"), collections.Counter()
    for i in range(len(source)):
        example = source[i]
        assert without_media(example).keys() == source.meta(i).keys()
        assert example["messages"] == source.meta(i)["messages"]
        assert example["group"] == f"b{i % 30 % 3}"
        check_messages(example["messages"], 1)
        made = write(example, np.random.default_rng(0))
        question, answer = (message["content"] for message in made["messages"])
        task, thing = example["question_type"], example["thing"]
        assert list(example["regions"].labels) == [COLORS.index(thing)]
        wordings = [q.replace("{}", thing) for q in getattr(TASKS[task], phrasings)]
        assert example["messages"][0]["content"] in [f"<image>\n{q}" for q in wordings]
        true = box_in(made["image"], thing)  # of the pixels
        if task == "where":
            np.testing.assert_allclose(read_box(answer), true, atol=0.03)
        elif task == "point":
            assert color_at(made["image"], read_point(answer)) == thing
        else:
            assert answer == thing
            np.testing.assert_allclose(read_box(question), true, atol=0.03)
        counts[task] += 1
    assert min(counts[task] for task in TASKS) > 10
    other = parse("write_boxes('decimals')")(source[0], np.random.default_rng(0))
    assert "[0." in str(other["messages"]) and "<loc" not in str(other["messages"])


def test_names_are_held_out_and_only_unique_ones_are_asked_about():
    held = {color for color in COLORS if is_unseen(color)}
    assert 0 < len(held) < len(COLORS)
    for names, allowed in (("known", set(COLORS) - held), ("unseen", held), ("all", set(COLORS))):
        source = open_grounded_instructions(Rectangles(30), 100, names=names)
        assert {source.meta(i)["thing"] for i in range(100)} == allowed
    twice = Rectangles(8, twice=True)  # the first two of each image have one color
    source = open_grounded_instructions(twice, 40)
    for i in range(40):
        labels = list(twice.meta(i % 8)["regions"].labels)
        assert labels.count(COLORS.index(source.meta(i)["thing"])) == 1
    large = open_grounded_instructions(Rectangles(30), 40, min_side=0.3)
    boxes = np.concatenate([large.meta(i)["regions"].boxes for i in range(40)])
    assert (boxes[:, 2:] - boxes[:, :2]).max(-1).min() >= 0.3
    assert not [text for text in large.corpus if "<box>" in text]


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"names": "new"}, "names of the grounded instructions are 'new': use"),
        ({"tasks": ("who",)}, r"tasks of the grounded instructions are \['who'\]"),
        ({"phrasings": "new"}, "phrasings of the grounded instructions are 'new'"),
        ({"length": 0}, "0 instructions for 6 images: use 1 or more"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        open_grounded_instructions(Rectangles(6), **{"length": 4, **settings})


def test_what_cannot_be_asked_or_written_is_one_sentence():
    with pytest.raises(ValueError, match="has no region to ask about: lower min_side"):
        open_grounded_instructions(Rectangles(6), 4, min_side=0.99)[0]
    nameless = Rectangles(6)
    nameless.class_names = None
    with pytest.raises(ValueError, match="rectangles has no regions with names"):
        open_grounded_instructions(nameless, 4)
    example, rng = open_grounded_instructions(Rectangles(6), 4)[0], np.random.default_rng(0)
    for change, chain, words in (
        ({"messages": []}, "write_boxes", "another number of places than its 1 regions"),
        ({"regions": None}, "write_boxes", "has no messages with regions"),
        ({"frame": (1.5, 1.5, 2.0, 2.0)}, "write_boxes", "is not in its image any more"),
    ):
        with pytest.raises(ValueError, match=words):
            parse(chain)({**example, **change}, rng)
    with pytest.raises(ValueError, match="form of boxes is 'pixels'"):
        parse("write_boxes('pixels')")
