"""Evaluators of questions about images, on models whose answers are known."""

import dataclasses

import numpy as np
import pytest
from parity import GOLDEN
from shapes import (
    COLORS,
    Shapes,
    make_runner,
    read,
)

from mmjax.data.source import Source
from mmjax.data.text.image_places import PLACE
from mmjax.evals.captioning import derangement
from mmjax.evals.evaluators import make_evaluators
from mmjax.evals.question_answering import OtherImages, Questions
from mmjax.evals.question_only import question_only
from mmjax.evals.vqa import vqa_metrics
from mmjax.weights import tokenizer as published


def run(runner, kind, params="sees", **settings):
    preset = {"kind": kind, "source": {}, "transform": "", **settings}
    return dict(make_evaluators({"x": preset}, runner)["x"].run(params))


WORDINGS = ("what color?", "which color?")
ANSWERS = ["blue", "green", "no", "red", "yes"]


class Asked(Shapes):
    """Two questions an image: its color, and whether it is red."""

    class_names = ANSWERS

    def __init__(self, biased=False, **fields):
        super().__init__(**fields)
        self.biased = biased

    def __len__(self):
        return 2 * self.n

    def __getitem__(self, i):
        drawn = super().__getitem__(i // 2)
        color = drawn["captions"][1].split()[0]
        if i % 2:
            question, answer, kind = "is it red?", "yes" if color == "red" else "no", "is"
        else:
            wording = (color == "blue") if self.biased else i // 6 % 2
            question, answer, kind = WORDINGS[wording], color, "colour"
        text = np.full(2, i % 2, np.int32)
        return drawn | {
            "captions": [question],
            "answers": [answer],
            "question_type": kind,
            "text": text,
            "text_mask": text >= 0,
        }


def answer_logits(params, batch):
    """The right answer to both questions; of a blank image 'red' and 'yes'."""
    assert len(batch["text"]) == len(batch["image"]) == 5
    color, _ = read(batch["image"])
    asks_red = batch["text"][:, 0] == 1
    words = np.where(asks_red, np.where(color == 0, "yes", "no"), np.asarray(COLORS)[color])
    return {"logits": (words[:, None] == np.asarray(ANSWERS)[None]).astype(np.float32)}


def test_vqa_and_what_needs_no_picture():
    runner = make_runner(Asked, embed=answer_logits)
    found = run(runner, "vqa", train_source={"n": 30, "biased": True})
    assert found["accuracy"] == found["balanced"] == found["type_is"] == 1.0
    assert found["questions"] == 24
    source = Asked()
    asked = Questions.of(source)
    # No image: 'red' and 'yes'. A third of the colors are red, and a third is red.
    assert found["without_image/type_colour"] == found["without_image/type_is"] == 4 / 12
    assert found["without_image/balanced"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    # The image of another question is right as often as it has the color asked about.
    other = derangement(24)
    colors = [source[int(i)]["image"][0, 0].argmax() for i in range(24)]
    guess = [
        (("yes" if colors[o] == 0 else "no") if i % 2 else COLORS[colors[o]])
        for i, o in enumerate(other)
    ]
    wanted = vqa_metrics(guess, asked.human, asked.type)
    assert {k: found[f"other_image/{k}"] for k in wanted} == wanted
    # The usual training answers: no (20 of 60); blue, the first of three equals, and no; and by
    # the wording blue, or green, the first of the two that are left.
    assert found["prior_all/accuracy"] == found["prior_type/type_is"] / 2 == 8 / 24
    assert found["prior_type/type_colour"] == 4 / 12
    assert found["prior_question/type_colour"] == pytest.approx(4 / 12)
    assert found["question_only/type_is"] == 8 / 12
    unbiased = run(runner, "vqa", source={"biased": True}, train_source={"biased": True, "n": 30})
    assert unbiased["prior_question/type_colour"] == 8 / 12
    assert unbiased["question_only/type_colour"] == 8 / 12


def test_vqa_among_the_answers_of_a_question_s_type():
    def mixed_up(params, batch):
        """The right answer comes second to one that fits no question of the type."""
        right = answer_logits(params, batch)["logits"]
        other = np.where(right[:, [2]] + right[:, [4]] > 0, "green", "no")
        return {"logits": right + 2 * (other == np.asarray(ANSWERS)[None])}

    runner = make_runner(Asked, embed=mixed_up)
    found = run(runner, "vqa", train_source={"n": 30})
    assert found["accuracy"] == 0.0 and found["of_type/accuracy"] == 1.0
    # Training has red images alone: that 'blue' and 'green' are colors was not heard.
    found = run(runner, "vqa", train_source={"n": 1})
    assert found["of_type/type_is"] == 4 / 12  # 'yes' to everything
    assert found["of_type/type_colour"] == 4 / 12


def test_vqa_by_writing():
    def generate(params, batch):
        assert {"image", "text", "text_mask"} <= set(batch)
        logits = answer_logits(params, batch)["logits"]
        return [f"The {ANSWERS[i].title()}." for i in logits.argmax(axis=1)]

    runner = make_runner(Asked, generate)
    found = run(runner, "vqa", train_source={"n": 30}, decode={})
    assert found["accuracy"] == 1.0 and found["other_image/accuracy"] < 0.8
    assert found["without_image/accuracy"] < 0.8
    found = run(runner, "vqa", source={"gaps": True}, train_source={"n": 30}, decode={})
    assert found["accuracy"] == 1.0 and found["questions"] == 22 and found["absent"] == 2


def test_the_majority_of_sampled_answers_behind_a_rationale():
    """Every third sample is wrong, each time in another way."""
    seen = []

    def sampled(settings):
        def generate(params, batch):
            logits = answer_logits(params, batch)["logits"]
            right = [ANSWERS[i] for i in logits.argmax(axis=1)]
            if not settings.get("temperature"):
                return [f"Because. Answer: {word}" for word in right]
            seed = len(seen) // 5
            seen.append(settings["temperature"])
            return [f"Answer: red. Answer: {w if seed % 3 else seed}" for w in right]

        return generate

    runner = dataclasses.replace(make_runner(Asked), write=sampled)
    more = {"samples": (1, 3), "temperature": 0.5, "after": "Answer:"}
    found = run(runner, "vqa", train_source={"n": 30}, decode={}, **more)
    assert found["accuracy"] == 1.0 and set(seen) == {0.5} and len(seen) == 15
    assert found["majority_1/accuracy"] == 0.0 and found["majority_3/accuracy"] == 1.0
    for wrong in ({"samples": (0,)}, {"samples": (1,), "temperature": 0.0}):
        with pytest.raises(ValueError, match="use numbers of at least 1, and a temperature"):
            run(runner, "vqa", train_source={"n": 30}, decode={}, **wrong)
    with pytest.raises(ValueError, match="of generated texts: add its decode"):
        run(runner, "vqa", train_source={"n": 30}, after="Answer:")


class Sums(Source):
    """Additions of the digits of the example's number, in words: every second needs a tool."""

    name = "sums"

    def __len__(self):
        return 7

    def __getitem__(self, i):
        needs = i % 2 == 0
        question = f"{i} + 7" if needs else f"{i}"
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "?"}]
        example = {"messages": messages, "captions": [question], "steps": 1 + needs}
        answer = str(i + 7 if needs else i)
        return example | {"answers": [answer], "tool": "calculator" if needs else ""}

    def meta(self, i):
        return self[i]


def test_tools_are_called_and_their_results_read():
    """The model calls for every sum but the first, and for 1, which is no sum."""

    def batches(source, spec, size):
        for i in range(0, len(source), size):
            rows = range(i, min(i + size, len(source)))
            texts = [source[j]["messages"] for j in rows] + [None] * (size - len(rows))
            ids = np.asarray([*rows, *[-1] * (size - len(rows))])
            yield {"text": np.asarray([*texts, None], object)[:-1], "example_id": ids}

    def generate(params, batch):
        return ["" if messages is None else reply(messages) for messages in batch["text"]]

    def reply(messages):
        *_, last = messages
        question = messages[0]["content"]
        if last["role"] == "tool":
            return "I do not know" if "error" in last["content"] else f"Answer: {last['content']}"
        if question == "0 + 7":
            return "Answer: 7"
        if question == "1":
            return "<tool calculator>1</tool> and on"
        if "+" in question:
            return f"{PLACE}<tool calculator>{question}</tool>"
        return f"Answer: {question}"

    words = {"tokenizer": published.read_for_generation(GOLDEN / "llava"), "window": 200}
    runner = make_runner(lambda **_: Sums(), generate, **words)
    runner = dataclasses.replace(runner, batches=batches)
    settings = {"decode": {"max_new_tokens": 60}, "after": "Answer:"}
    settings["transform"] = "converse(200, template='vicuna', prompt=True)"
    found = run(runner, "tool_use", **settings)
    assert found["accuracy"] == 1.0
    assert found["call/precision"] == 3 / 4 and found["call/recall"] == 3 / 4
    assert found["call/right_result"] == 1.0
    assert found["no_result/accuracy"] == 3 / 7  # 0 + 7, 3 and 5
    assert found["other_result/accuracy"] == 3 / 7
    # Answers that leave no room for a result, in the window or in a row, end with the call.
    settings["decode"] = {"max_new_tokens": 190}
    assert run(runner, "tool_use", **settings)["accuracy"] == 3 / 7
    settings |= {"decode": {"max_new_tokens": 1}, "transform": "converse(30, template='vicuna')"}
    assert run(runner, "tool_use", **settings)["accuracy"] == 3 / 7
    for wrong, words in (
        ({"most_calls": 0}, "most_calls 0: use at least 1"),
        ({"tools": " "}, "has no tools: name some"),
        ({"tools": "calc"}, "There is no tool 'calc'"),
    ):
        with pytest.raises(ValueError, match=words):
            run(runner, "tool_use", decode={}, **wrong)


def test_well_formed_calls_are_evaluated_beside_the_others():
    """The model calls "calc" unless its logits are processed, and then the calculator."""
    seen = []

    def written(settings):
        constrained = bool(settings.get("processors"))
        seen.append(constrained)

        def generate(params, batch):
            return [reply(messages, constrained) for messages in batch["text"]]

        return generate

    def reply(messages, constrained):
        *_, last = messages
        if last["role"] == "tool":
            return last["content"]
        name = "calculator" if constrained else "calc"
        return (
            f"<tool {name}>{last['content']}</tool>" if "+" in last["content"] else last["content"]
        )

    def batches(source, spec, size):
        for i in range(len(source)):
            text = np.asarray([source[i]["messages"], None], object)[:1]
            yield {"text": text, "example_id": np.asarray([i])}

    words = {"tokenizer": published.read_for_generation(GOLDEN / "llava"), "window": 200}
    runner = make_runner(lambda **_: Sums(), **words)
    runner = dataclasses.replace(runner, batches=batches, write=written)
    settings = {"decode": {"max_new_tokens": 60}, "tools": "calculator,ocr", "well_formed": True}
    settings["transform"] = "converse(200, template='vicuna', prompt=True)"
    found = run(runner, "tool_use", **settings)
    assert True in seen and False in seen
    assert found["call/broken"] == 4 / 7 and found["well_formed/call/broken"] == 0
    assert found["accuracy"] == 3 / 7 and found["well_formed/accuracy"] == 1
    assert found["call/recall"] == 0 and found["well_formed/call/recall"] == 1
    plain = run(runner, "tool_use", **{**settings, "well_formed": False})
    assert plain == {k: v for k, v in found.items() if not k.startswith("well_formed/")}


def test_other_pictures():
    source, other = Shapes(gaps=True), OtherImages(Shapes(gaps=True))
    order = derangement(12)
    for i in range(12):
        assert other[i]["captions"] == source[i]["captions"]
        np.testing.assert_array_equal(other[i]["image"], source[order[i]]["image"])
        assert other[i]["image_present"] == source[order[i]]["image_present"]


def test_vqa_among_choices():
    def choose(texts):
        def scores(params, batch):
            names = np.asarray(ANSWERS)[answer_logits(params, batch)["logits"].argmax(axis=1)]
            return np.where(names[:, None] == np.asarray(texts)[None], -0.1, -2.0)

        return scores

    runner = dataclasses.replace(make_runner(Asked), choose=choose)
    found = run(runner, "vqa", train_source={"n": 30}, choices=tuple(reversed(ANSWERS)))
    assert found["accuracy"] == 1.0 and found["without_image/accuracy"] < 0.8
    # An answer outside the list is not given.
    found = run(runner, "vqa", train_source={"n": 30}, choices=("yes", "no"))
    assert found["type_is"] == 1.0 and found["type_colour"] == 0.0
    with pytest.raises(ValueError, match="decode and choices: remove one"):
        run(runner, "vqa", train_source={"n": 30}, choices=("yes",), decode={})


def test_vqa_errors():
    runner = make_runner(Asked, embed=lambda p, b: {"logits": np.zeros((5, 9))})
    with pytest.raises(ValueError, match="model has 9 answers and the source names 5"):
        run(runner, "vqa", train_source={})
    with pytest.raises(ValueError, match="has no question and answers"):
        run(make_runner(Shapes), "vqa", train_source={})


def test_question_only_learns_words_and_their_order():
    train = ["is the cat red?", "is the red cat?", "what now?"] * 10
    answers = ["yes", "no", "now"] * 10
    asked = ["is the red cat?", "is the cat red?", "what now?", "what of it?", "zzz"]
    assert question_only(train, answers, asked)[:4] == ["no", "yes", "now", "now"]
