"""Few-shot prompts, read back by a stand-in for a model that looks at what it is shown."""

import dataclasses

import numpy as np
import pytest
from shapes import COLORS, SENTENCE, SHAPES, Shapes, make_runner, read

from mmjax.evals.evaluators import make_evaluators

PLACE, BEGIN, END = 1, 2, 3


class Words:
    """One token a word."""

    bos_id = BEGIN
    words = [*SENTENCE.format("", "").split(), *COLORS, *SHAPES]

    def encode(self, texts, length):
        rows = [[BEGIN, *(4 + self.words.index(w) for w in t.split()), END] for t in texts]
        text = np.zeros((len(rows), length), np.int32)
        for row, ids in zip(text, rows):
            row[: len(ids)] = ids
        return text, text > 0

    def decode(self, ids):
        return " ".join(self.words[i - 4] for i in ids)


class Coloured(Shapes):
    """With the color as class."""

    class_names = list(COLORS)

    def __getitem__(self, i):
        return super().__getitem__(i) | {"label": (i + self.offset) % 3}


def reader(shots, of="caption"):
    """Checks every example of the prompt against its image, and says what the last one shows."""

    def truth(image):
        color, shape = read(image[None])
        if of == "label":
            return COLORS[color[0]]
        return SENTENCE.format(COLORS[color[0]], SHAPES[shape[0]])

    def generate(params, batch):
        texts = []
        for image, there, text, mask in zip(
            *(batch[k] for k in ("image", "image_mask", "text", "text_mask"))
        ):
            row = text[mask].tolist()
            assert row[0] == BEGIN and row[-1] == PLACE
            chunks = " ".join(map(str, row[2:-1])).split(f" {PLACE} ") if len(row) > 2 else []
            said = [Words().decode([int(t) for t in c.split()][:-1]) for c in chunks]
            assert len(said) == there.sum() - 1 == shots
            assert said == [truth(x) for x in image[:shots]]
            texts.append(truth(image[shots]))
        return texts

    return generate


def preset(shots, **more):
    train = {"n": 24, "offset": 1}
    return {
        "kind": "few_shot",
        "source": {},
        "transform": "",
        "train_source": train,
        "shots": shots,
        "image_token": PLACE,
        "length": 80,
        "support": 9,
        **more,
    }


@pytest.mark.parametrize("shots", [0, 2, 5])
def test_examples_come_before_each_picture_with_their_own_texts(shots):
    runner = make_runner(generate=reader(shots), tokenizer=Words())
    found = dict(make_evaluators({"x": preset(shots)}, runner)["x"].run(None))
    assert found["bleu_4"] == pytest.approx(1.0)


def classified(runner, **more):
    evaluator = make_evaluators({"x": preset(**more, kind="few_shot_classification")}, runner)["x"]
    evaluator.check()
    return dict(evaluator.run(None))


@pytest.mark.parametrize("shots", [0, 3])
def test_the_class_whose_name_is_likeliest_is_the_answer(shots):
    asked = []

    def choose(names):
        asked.append(names)
        read = reader(shots, "label")
        return lambda params, batch: np.array(
            [[-1.0 - (name != said) for name in names] for said in read(params, batch)]
        )

    runner = make_runner(Coloured, tokenizer=Words(), choose=choose)
    found = classified(runner, shots=shots)
    assert {k: v for k, v in found.items() if "/" not in k} == {
        "top1": 1.0,
        "top5": 1.0,
        "mean_per_class": 1.0,
    }
    # 24 training images, eight of each color: the first one is guessed.
    assert found["prior/top1"] == found["prior/mean_per_class"] == pytest.approx(1 / 3)
    assert asked[0] == list(COLORS)
    never = lambda names: lambda params, batch: -np.tile(np.arange(3.0), (5, 1))  # noqa: E731
    found = classified(dataclasses.replace(runner, choose=never), shots=shots)
    assert found["top1"] == pytest.approx(1 / 3)


def test_an_absent_picture_is_left_out_of_the_classes():
    class Gaps(Coloured):
        def __getitem__(self, i):
            return super().__getitem__(i) | {"image_present": i % 4 != 3 or self.offset == 1}

    def choose(names):
        return lambda params, batch: -np.tile(np.arange(3.0), (5, 1))

    runner = make_runner(Gaps, tokenizer=Words(), choose=choose)
    found = classified(runner, shots=2)
    assert found["absent"] == 3.0
    labels = [i % 3 for i in range(12) if i % 4 != 3]
    assert found["top1"] == pytest.approx(labels.count(0) / 9)


def test_the_most_frequent_class_is_found_by_name():
    """Blue is the most frequent one in training, where it has another number, and 3 of 10 here."""

    class Turned(Coloured):
        def __getitem__(self, i):
            example = super().__getitem__(i)
            if self.offset == 0:
                return example
            color = "blue" if i >= 12 else COLORS[example["label"]]
            return example | {"label": self.class_names.index(color)}

        @property
        def class_names(self):
            return ["blue", "green", "red"] if self.offset else list(COLORS)

    choose = lambda names: lambda params, batch: -np.tile(np.arange(3.0), (5, 1))  # noqa: E731
    runner = make_runner(Turned, tokenizer=Words(), choose=choose)
    found = classified(runner, shots=0, source={"n": 10})
    assert found["top1"] == pytest.approx(0.4) and found["prior/top1"] == pytest.approx(0.3)


def test_settings_that_cannot_be():
    runner = make_runner(tokenizer=Words())
    with pytest.raises(ValueError, match="10 shots of 9 examples"):
        make_evaluators({"x": preset(10)}, runner)
    with pytest.raises(ValueError, match="few_shot has 5 shots and its train_source 3 examples"):
        few = make_evaluators({"x": preset(5, train_source={"n": 3})}, runner)
        few["x"].check()
    small = dataclasses.replace(runner, window=89)
    few = preset(1, decode={"max_new_tokens": 9})
    make_evaluators({"x": few}, small)["x"].check()  # 80 and 9
    with pytest.raises(ValueError, match="prompts of 80 tokens and 10 new ones, .* window is 89"):
        few = preset(1, decode={"max_new_tokens": 10})
        make_evaluators({"x": few}, small)["x"].check()
    with pytest.raises(ValueError, match="needs labels with class names"):
        classified(runner, shots=1)
    with pytest.raises(ValueError, match="generates no text"):
        classified(make_runner(Coloured, tokenizer=Words()), shots=1)
