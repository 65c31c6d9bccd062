"""Grounded answers of models that look at the pixels, at nothing, or give no box."""

import re

import numpy as np
import pytest
from fake_runner import FakeRunner
from rectangles import COLORS, Rectangles, box_in, color_at

from mmjax.data.pipeline import eval_batches
from mmjax.data.sources.grounded_instructions import open_grounded_instructions
from mmjax.data.text.locations import write_places
from mmjax.data.text.train_bpe import train_bpe
from mmjax.data.transforms.parse import parse
from mmjax.evals.evaluators import make_evaluators
from mmjax.evals.grounded_answers import Truth, answer_metrics, prior_metrics

WORDS = train_bpe(["where is the red"] * 3, 1400, specials=("<image>",), locations=True)
END = "regions(1) | write_boxes({}) | converse(90, 3, 1, template='vicuna', prompt=True)"


def answer(image, question, form):
    """What the pixels say."""
    color = next((color for color in COLORS if color in question), None)
    if color is None:
        numbers = re.findall(r"<loc(\d+)>", question)
        y0, x0, y1, x1 = (
            (int(n) / 1023 for n in numbers)
            if numbers
            else (float(n) for n in np.asarray(re.findall(r"\d\.\d\d", question))[[1, 0, 3, 2]])
        )
        return color_at(image, ((x0 + x1) / 2, (y0 + y1) / 2)) or "nothing"
    try:
        box = box_in(image, color)
    except IndexError:  # of another image
        return "nowhere"
    wants_point = any(word in question for word in ("oint", "lick"))
    return write_places((box[:2] + box[2:]) / 2 if wants_point else box, form)


def make_runner(form, mumbles=False):
    def generate(params, batch):
        rows = []
        for image, text, mask in zip(batch["image"][:, 0], batch["text"], batch["text_mask"]):
            question = WORDS._backend.decode(text[mask].tolist(), skip_special_tokens=False)
            rows.append("um" if mumbles else answer(image, question, form))
        return rows

    def batches(source, spec, size):
        return eval_batches(source, parse(spec, tokenizer=WORDS), batch_size=size, num_threads=1)

    return FakeRunner(
        open_source=lambda config: open_grounded_instructions(Rectangles(**config), 40),
        batches=batches,
        write=lambda settings: generate,
        batch_size=7,
        tokenizer=WORDS,
    )


def run(runner, chain, form):
    preset = {"kind": "grounded_answers", "source": {"n": 30}, "train_source": {"n": 9, "seed": 1}}
    preset |= {"decode": {}, "transform": f"{chain} | {END.format(repr(form))}"}
    evaluator = make_evaluators({"x": preset}, runner)["x"]
    evaluator.check()
    return dict(evaluator.run(None))


@pytest.mark.parametrize(
    "chain, form", [("decode", "bins"), ("decode | pad_corner(64)", "decimals")]
)
def test_a_model_that_looks_is_right_and_with_another_image_is_not(chain, form):
    found = run(make_runner(form), chain, form)
    for task in ("where", "point", "what"):
        assert found[f"{task}/accuracy"] == 1.0 and found[f"group_b2/{task}/accuracy"] == 1.0
        assert found[f"other_image/{task}/accuracy"] < 0.5
        assert found[f"prior/{task}/accuracy"] < 0.5
    assert found["where/iou"] > 0.9 and found["where/read"] == found["point/read"] == 1.0
    assert found["other_image/where/read"] < 1 and "absent" not in found


def test_answers_without_a_box_count_as_wrong():
    found = run(make_runner("bins", mumbles=True), "decode", "bins")
    names = ("accuracy", "iou", "read")
    assert [found[f"where/{name}"] for name in names] == [0, 0, 0]
    assert found["point/accuracy"] == found["what/accuracy"] == found["point/read"] == 0


def test_the_metrics_of_a_few_answers_by_hand():
    box = np.asarray([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5], [0.2, 0.2, 0.4, 0.4], [0, 0, 1, 1.0]])
    task = np.asarray(["where", "where", "point", "what"], object)
    asked = Truth(task, box, np.asarray(["a", "b", "c", "the dog"], object), task)
    texts = ["[0, 0, 0.5, 1]", "[0, 0, 0.4, 0.5]", "[0.3, 0.5]", "Dog."]
    found = dict(answer_metrics(texts, asked))
    assert found["where/accuracy"] == 1.0 and found["where/iou"] == pytest.approx((0.5 + 0.8) / 2)
    assert found["point/accuracy"] == 0.0 and found["what/accuracy"] == 1.0
    # Of training: "a" was at 0..0.5 twice and once elsewhere; "b" is unknown there.
    known = Truth(
        task[[0, 0, 0]],
        np.asarray([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5], [0.9, 0.9, 1, 1]]),
        np.asarray(["a"] * 3, object),
        task[:3],
    )
    prior = dict(prior_metrics(known, asked.at(np.arange(4))))
    assert prior["where/accuracy"] == 1.0 and prior["point/accuracy"] == 1.0
    assert prior["what/accuracy"] == 0.0 and "where/read" not in prior


def test_another_source_or_transform_is_refused():
    runner = make_runner("bins")
    with pytest.raises(ValueError, match="needs boxes and text and its transform gives"):
        preset = {"kind": "grounded_answers", "source": {"n": 3}, "train_source": {"n": 3}}
        preset |= {"decode": {}, "transform": "decode"}
        make_evaluators({"x": preset}, runner)["x"].check()
