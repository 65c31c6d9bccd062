"""Instructions made from metadata: answers, held-out phrasings and concepts, balance."""

import collections
import re

import numpy as np
import pytest

from mmjax.data.source import Source, without_media
from mmjax.data.sources import digit_instructions, emoji_instructions
from mmjax.data.sources.digit_instructions import held_out, open_digit_instructions
from mmjax.data.sources.emoji_instructions import EmojiInstructions
from mmjax.data.sources.emoji_questions import KINDS, LANGUAGES, TONES
from mmjax.data.text.calls import read_call
from mmjax.data.text.chat import check_messages
from mmjax.tools.run import run
from mmjax.tools.table import TOOLS

CATEGORIES = KINDS["category"].answers


def drawing(n, style="twemoji", tone="", name=None):
    return {
        "image": b"%d" % n,
        "codepoints": f"{n:x}",
        "captions": [name or f"thing {n}"],
        "names": [f"{language}-{n}" for language in LANGUAGES],
        "languages": list(LANGUAGES),
        "category": CATEGORIES[n % 9].title(),
        "skin_tone": tone,
        "group": f"{n:x}",
        "style": style,
    }


class Listed(Source):
    def __init__(self, examples, class_names=None):
        self.name, self.examples, self.class_names = "listed", examples, class_names

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]

    def meta(self, index):
        return without_media(self.examples[index])


DRAWINGS = [drawing(n, style) for n in range(60) for style in ("twemoji", "openmoji")]
DRAWINGS += [drawing(70, name="red heart"), drawing(71, tone=f"{TONES[0]} skin tone")]


@pytest.mark.parametrize("phrasings", ["known", "unseen"])
def test_emoji_answers_are_the_metadata_in_phrasings_of_their_kind(phrasings):
    source = EmojiInstructions("x", [Listed(DRAWINGS)], phrasings, tuple(emoji_instructions.TASKS))
    counts, phrased = collections.Counter(), collections.defaultdict(set)
    for i in range(len(source)):
        example = source[i]
        about = DRAWINGS[int(example["image"]) * 2 if int(example["image"]) < 60 else -1]
        task, answer = example["question_type"], example["answer"]
        user, assistant = example["messages"]
        assert user["content"] == f"<image>\n{example['captions'][0]}"
        assert assistant == {"role": "assistant", "content": answer}
        choices = getattr(emoji_instructions.TASKS[task], phrasings)
        (found,) = [c for c in choices if matches(c, example["captions"][0])]
        phrased[task].add(found)
        counts[task, answer if answer in ("yes", "no") else ""] += 1
        if task == "name":
            assert answer in (f"thing {int(example['image'])}", "red heart")
        if task == "shows":
            asked = example["captions"][0]
            assert (f"thing {int(example['image'])}" in asked.rstrip("?. ").split(" here")[0]) or (
                answer == "no" or "red heart" in asked
            )
        if task == "category" and int(example["image"]) < 60:
            assert answer == about["category"].lower()
    assert counts["shows", "yes"] == counts["shows", "no"] > 100
    assert counts["is_category", "yes"] == counts["is_category", "no"]
    assert counts["colour", ""] == 1 and counts["skin_tone", ""] == 1
    for task in ("name", "category", "shows"):
        assert phrased[task] == set(getattr(emoji_instructions.TASKS[task], phrasings))


def matches(phrasing, text):
    before, _, after = phrasing.partition("{}")
    return (
        text.startswith(before) and text.endswith(after) if "{}" in phrasing else text == phrasing
    )


DIGITS = Listed(
    [
        {"key": f"{i}", "image": np.full((28, 28, 1), 25 * (i % 10) + 5, np.uint8), "label": i % 10}
        for i in range(400)
    ],
    [str(d) for d in range(10)],
)


@pytest.mark.parametrize("test", [False, True])
def test_digit_answers_are_those_of_the_digits_that_are_drawn(test):
    source = open_digit_instructions(DIGITS, test)
    counts, tasks = collections.Counter(), digit_instructions.TASKS
    for i in range(len(source)):
        example = source[i]
        corners = example["image"][::28, ::28, 0]
        drawn = sorted((corners[corners > 0].astype(int) - 5) // 25)
        assert drawn == sorted(example["digits"]) and held_out(drawn) == test
        task, answer = example["question_type"], example["answer"]
        if task == "contains":
            (digit,) = [d for d in range(10) if f" {d}" in example["captions"][0]]
            assert (answer == "yes") == (digit in drawn)
            counts[answer] += 1
        else:
            want = {"count": len(drawn), "sum": sum(drawn), "largest": max(drawn)}[task]
            assert answer == str(want)
        assert any(matches(c, example["captions"][0]) for c in tasks[task].known)
        assert without_media(example) == source.meta(i)
    assert 0.35 < counts["yes"] / counts.total() < 0.65
    assert source[3]["messages"] == source[3]["messages"]


@pytest.mark.parametrize("targets", ["steps", "tool"])
def test_a_rationale_is_that_of_the_drawn_digits(targets):
    source = open_digit_instructions(DIGITS, targets=targets)
    plain, calls = open_digit_instructions(DIGITS), 0
    for i in range(len(source)):
        example = source[i]
        corners = example["image"][::28, ::28, 0].ravel()
        read = [(int(c) - 5) // 25 for c in corners if c > 0]  # in reading order
        _, *said = example["messages"]
        text = said[0]["content"]
        assert text.startswith(" ".join(map(str, read)) + ". ")
        assert said[-1]["content"].endswith(f"Answer: {example['answer']}")
        assert example["answer"] == plain[i]["answer"] and example["steps"] == len(read)
        assert (example["image"] == plain[i]["image"]).all()
        if example["tool"] and targets == "tool":
            calls += 1
            call = read_call(text)
            assert [m["role"] for m in said] == ["assistant", "tool", "assistant"]
            assert run(call, TOOLS) == said[1]["content"] == str(sum(read))
            assert call.arguments == " + ".join(map(str, read))
        elif example["tool"]:
            sums = re.findall(r"(\d+) \+ (\d+) = (\d+)\.", text)
            assert len(sums) == len(read) - 1
            assert all(int(a) + int(b) == int(c) for a, b, c in sums)
            assert sums[-1][2] == example["answer"]
        else:
            assert len(said) == 1 and "=" not in text
        check_messages(example["messages"], 1)
    assert (calls > 50) == (targets == "tool")
    assert any("Answer: " in text for text in source.corpus)
    with pytest.raises(ValueError, match="targets of the digit instructions are 'why': use"):
        open_digit_instructions(DIGITS, targets="why")


def test_what_is_refused():
    with pytest.raises(ValueError, match="phrasings of the digit instructions are 'new': use one"):
        open_digit_instructions(DIGITS, phrasings="new")
    with pytest.raises(ValueError, match=r"tasks of the digit instructions are \['product'\]: use"):
        open_digit_instructions(DIGITS, tasks=("sum", "product"))
    with pytest.raises(ValueError, match="listed has no labels of ten digits"):
        open_digit_instructions(Listed(DIGITS.examples))
    every = (emoji_instructions.TASKS, digit_instructions.TASKS)
    for task in (task for tasks in every for task in tasks.values()):
        assert not set(task.known) & set(task.unseen)
