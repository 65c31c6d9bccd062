"""Captioning, VQA, perplexity and ablation on stand-ins for systems whose answers are known."""

import dataclasses
import types

import jax
import numpy as np
import pytest
import scipy.special
import toy
from shapes import (
    COLORS,
    MISSING,
    SENTENCE,
    Shapes,
    batches,
    make_runner,
    read,
    write_captions,
)

from mmjax import config as configs
from mmjax.decode.generate import Generated
from mmjax.evals.captioning import derangement
from mmjax.evals.evaluators import make_evaluators
from mmjax.evals.metrics.caption_metrics import caption_metrics
from mmjax.evals.neighbors import nearest, thumbnails
from mmjax.evals.outputs import select
from mmjax.evals.question_answering import OtherImages, Questions
from mmjax.evals.question_only import question_only
from mmjax.evals.vqa import vqa_metrics
from mmjax.run import experiment
from mmjax.run.evaluation import Runner


def run(runner, kind, params="sees", **settings):
    preset = {"kind": kind, "source": {}, "transform": "", **settings}
    return dict(make_evaluators({"x": preset}, runner)["x"].run(params))


# ---------------------------------------------------------------- captioning


def test_captioning_of_a_model_that_sees():
    found = run(make_runner(), "captioning", train_source={"n": 60, "offset": 1})
    # Every text is one of its references word for word.
    assert [found["bleu_1"], found["bleu_4"]] == pytest.approx([1.0, 1.0])
    assert found["rouge_l"] == found["meteor_exact"] == 1.0
    # The training set shows the same twelve things: so does the neighbour's caption.
    assert {k: v for k, v in found.items() if "/" not in k} == {
        k.split("/")[1]: v for k, v in found.items() if k.startswith("nearest/")
    }
    # Against another image's references at least one of the two words is wrong.
    assert found["shuffled/bleu_1"] <= 9 / 10 and found["shuffled/cider"] < found["cider"] / 2
    assert "absent" not in found


def test_captioning_of_a_blind_model():
    found = run(make_runner(), "captioning", "blind")
    source = Shapes()
    texts = [SENTENCE.format("red", "star")] * 12
    wanted = caption_metrics(texts, [source[i]["captions"] for i in range(12)])
    assert {k: v for k, v in found.items() if "/" not in k} == wanted
    assert {k: v for k, v in found.items() if k.startswith("shuffled/")} == {
        f"shuffled/{k}": v for k, v in wanted.items()
    }
    assert not any(k.startswith("nearest") for k in found)


def test_absent_pictures_get_no_caption_and_are_counted():
    runner = make_runner()
    preset = {"kind": "captioning", "source": {"gaps": True}, "transform": ""}
    preset["train_source"] = {"gaps": True}
    evaluator = make_evaluators({"x": preset}, runner)["x"]
    found = evaluator.captions("sees")
    assert found.places.tolist() == [i for i in range(12) if i != MISSING]
    assert found.texts == found.nearest == [references[0] for references in found.references]
    assert dict(evaluator.run("sees"))["absent"] == 1


def test_captions_of_some_pictures_are_those_among_all():
    preset = {"kind": "captioning", "source": {"gaps": True}, "transform": ""}
    preset["train_source"] = {"n": 60, "offset": 1}
    evaluator = make_evaluators({"x": preset}, make_runner())["x"]
    every, some = evaluator.captions("sees"), evaluator.captions("sees", np.array([1, MISSING, 8]))
    assert some.places.tolist() == [1, 8]  # the absent one has no caption
    for field in ("texts", "references", "nearest"):
        whole = dict(zip(every.places.tolist(), getattr(every, field)))
        assert getattr(some, field) == [whole[1], whole[8]]


def test_captioning_s_prompt_and_features():
    class Prompted(Shapes):
        def __getitem__(self, i):
            text = np.full(3, i, np.int32)
            return super().__getitem__(i) | {"text": text, "text_mask": text >= 0}

    def generate(params, batch):
        return [f"text {row[0]}" for row in batch["text"]]

    runner = make_runner(Prompted, generate)
    preset = {"kind": "captioning", "source": {}, "transform": "", "prompt": True}
    found = make_evaluators({"x": preset}, runner)["x"].captions("sees")
    assert found.texts == [f"text {i}" for i in range(12)]
    # Without it the text of the batch, which is the answer, never reaches the model.
    run(make_runner(Prompted), "captioning")

    def embed(params, batch):
        color, shape = read(batch["image"])
        return {"image_features": np.eye(12)[color * 4 + shape]}

    features = {"train_source": {"n": 24}, "neighbour": "image_features"}
    found = run(make_runner(embed=embed), "captioning", **features)
    assert found["nearest/rouge_l"] == 1.0


def test_captioning_says_early_what_is_missing(monkeypatch, tmp_path):
    def refuse(settings):
        raise ValueError(f"decode.beams is {settings['beams']}")

    preset = {"kind": "captioning", "source": {}, "transform": "", "decode": {"beams": -1}}
    with pytest.raises(ValueError, match="decode.beams is -1"):
        make_evaluators({"x": preset}, dataclasses.replace(make_runner(), write=refuse))
    with pytest.raises(ValueError, match="generates no text"):
        make_evaluators({"x": preset}, dataclasses.replace(make_runner(), write=None))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="SPICE runs on Java"):
        make_evaluators({"x": preset | {"spice": True}}, make_runner())


@pytest.mark.parametrize("count", [2, 3, 10, 101])
def test_a_derangement_leaves_nothing_in_its_place(count):
    order = derangement(count)
    assert sorted(order) == list(range(count)) and (order != np.arange(count)).all()
    assert (order == derangement(count)).all()


def test_nearest_by_brute_force():
    rng = np.random.default_rng(0)
    train, test = rng.normal(5, 1, (40, 3, 2)), rng.normal(5, 1, (30, 3, 2))
    centre = train.mean(axis=0, keepdims=True)

    def cosine(a, b):
        a, b = (a - centre[0]).ravel(), (b - centre[0]).ravel()
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    slow = [max(range(40), key=lambda k: cosine(x, train[k])) for x in test]
    assert nearest(train, test).tolist() == slow
    image = np.zeros((1, 48, 32, 3), np.uint8)
    image[:, :3, :2] = 90
    small = thumbnails(image)
    assert small.shape == (1, 16, 16, 3)
    assert small[0, 0, 0].tolist() == [90] * 3 and small[0].sum() == 270


# ---------------------------------------------------------------- VQA

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
        picture = super().__getitem__(i // 2)
        color = picture["captions"][1].split()[0]
        if i % 2:
            question, answer, kind = "is it red?", "yes" if color == "red" else "no", "is"
        else:
            wording = (color == "blue") if self.biased else i // 6 % 2
            question, answer, kind = WORDINGS[wording], color, "colour"
        text = np.full(2, i % 2, np.int32)
        return picture | {
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


# ---------------------------------------------------------------- perplexity


class Texts(Shapes):
    """Texts of five tokens out of eight, of different lengths; one has none."""

    def __getitem__(self, i):
        text = (np.arange(5) * 3 + i).astype(np.int32) % 8
        mask = np.arange(5) < 2 + i % 4
        image = super().__getitem__(i)["image"]
        example = {"text": text, "text_mask": mask, "text_present": i != MISSING, "image": image}
        return example | ({"text_loss_mask": mask & (np.arange(5) >= 2)} if self.offset else {})


def next_token_losses(params, batch):
    """Every token has the loss of e^3 against seven ones; nothing is known of what is absent."""
    losses = np.full((len(batch["text"]), 4), np.log(np.exp(3) + 7) - 3)
    losses[~batch["text_present"]] = np.nan
    return {"token_losses": losses}


def test_perplexity_counts_tokens():
    runner = make_runner(Texts, embed=next_token_losses)
    found = run(runner, "perplexity")
    assert found["perplexity"] == pytest.approx((np.exp(3) + 7) / np.exp(3))
    assert found["loss"] == pytest.approx(np.log(found["perplexity"]))
    assert found["tokens"] == sum(1 + i % 4 for i in range(12) if i != MISSING)
    assert found["absent"] == 1
    answer_alone = run(runner, "perplexity", source={"offset": 1})
    assert answer_alone["tokens"] == sum(i % 4 for i in range(12) if i != MISSING)

    def without_image(params, batch):
        assert "image" not in batch
        return next_token_losses(params, batch)

    run(make_runner(Texts, embed=without_image), "perplexity", modalities=["text"])
    with pytest.raises(ValueError, match="needs 'text' and its transform gives"):
        run(make_runner(Shapes), "perplexity")
    with pytest.raises(ValueError, match="needs a model that predicts text, and this one gives"):
        run(make_runner(Texts), "perplexity")


# ---------------------------------------------------------------- modalities in turn


class Both(Shapes):
    """The label is the color; image and text both tell it, the text less surely."""

    def __getitem__(self, i):
        label = i % 3
        text = np.asarray([label if i % 4 else (label + 1) % 3, 1], np.int32)
        known = {"text": text, "text_mask": text >= 0, "text_present": True}
        return super().__getitem__(i) | known | {"label": np.int32(label)}


def late_fusion(params, batch):
    image, text = (batch[f"{m}_present"][:, None] for m in ("image", "text"))
    seen = np.eye(3)[batch["image"][:, 0, 0].argmax(axis=1)] * image * 2
    told = np.eye(3)[batch["text"][:, 0]] * text
    assert not batch["image"][~image[:, 0] & (batch["example_id"] >= 0)].any()
    assert not batch["text_mask"][~text[:, 0] & (batch["example_id"] >= 0)].any()
    return {"logits": (seen + told).astype(np.float32)}


def test_modalities_in_turn():
    both = {"modalities": ["image", "text"]}
    found = run(make_runner(Both, embed=late_fusion), "modality_ablation", **both)
    assert found["all/top1"] == found["without_text/top1"] == 1.0
    assert found["without_image/top1"] == found["without_image/same_answer"] == 9 / 12
    assert found["without_text/same_answer"] == 1.0
    # An image that is absent anyway is no reason to leave the example out: its text is there.
    gaps = {"source": {"gaps": True}}
    found = run(make_runner(Both, embed=late_fusion), "modality_ablation", **both, **gaps)
    assert found["without_text/top1"] == 11 / 12 and "absent" not in found
    for wrong in (["image"], ["image", "images"]):
        with pytest.raises(ValueError, match="name at least two of image, text"):
            run(make_runner(Both), "modality_ablation", modalities=wrong)


def test_select():
    batch = next(batches(Both(gaps=True), "", 8))
    given, present = select(batch, ("image",))
    assert set(given) == {"image", "image_present", "label", "example_id"}
    assert present.tolist() == [i != MISSING for i in range(8)]
    given, present = select(batch, ("image", "text"), absent=("text",))
    assert present.all() and not given["text_present"].any() and not given["text"].any()
    assert select(batch, ("image", "text"), every=True)[1].tolist() == [
        i != MISSING for i in range(8)
    ]
    with pytest.raises(ValueError, match="needs one of audio, video and its transform gives"):
        select(batch, ("audio", "video"))


# ---------------------------------------------------------------- a real run


def test_a_run_s_token_losses_are_those_of_its_logits(tmp_path):
    config = toy.shrink(configs.load("configs/captioner_drawings.py", ()))
    run = toy.build(config, toy.MESHES["data=2,fsdp=2,tensor=2"])
    params = toy.init(run).params
    batch = {k: v for k, v in toy.batch(config).items() if k != "example_id"}
    runner = Runner(run, tmp_path, lambda *args: None)
    found = runner.apply({"params": params}, batch, ["token_losses"])
    assert set(found) == {"token_losses"}
    logits = run.model.apply({"params": jax.device_get(params)}, batch)["text_logits"]
    log_p = scipy.special.log_softmax(np.asarray(logits, np.float64)[:, :-1], axis=-1)
    expected = -np.take_along_axis(log_p, batch["text"][:, 1:, None], axis=-1)[..., 0]
    np.testing.assert_allclose(found["token_losses"], expected, atol=1e-5)


def test_what_a_system_writes_reaches_the_evaluators(tmp_path):
    """The seam of `System.generate`: a system's own function, under the run's mesh."""
    # A system that reads no text may still have a tokenizer, to write with.
    tokenizer = types.SimpleNamespace(vocab_size=9)
    run = experiment.build(toy.config("vit", mesh=toy.ONE), tokenizer, jax.devices()[:1])
    preset = {"kind": "captioning", "source": {}, "transform": "", "decode": {"beams": 3}}
    runner = Runner(run, tmp_path, lambda *args: None)
    said = "The system 'vit' generates no text: remove the evaluations"
    with pytest.raises(ValueError, match=said):
        make_evaluators({"x": preset}, runner)
    with pytest.raises(ValueError, match=said):
        runner.score(["a", "b"])
    with pytest.raises(ValueError, match="The system 'vit' samples nothing"):
        runner.sample({}, {}, jax.random.key(0), {})
    made = []

    def generate(tokenizer, settings):
        made.append((tokenizer, settings))

        def write(params, batch):
            assert params == "sees" and isinstance(batch["image"], jax.Array)
            texts = write_captions(params, jax.tree.map(np.asarray, batch))
            return Generated(texts, None, None, None)

        return write

    system = dataclasses.replace(run.system, generate=generate)
    runner = Runner(dataclasses.replace(run, system=system), tmp_path, lambda *args: None)
    runner.open_source, runner.batches = lambda config: Shapes(), batches
    found = dict(make_evaluators({"x": preset}, runner)["x"].run("sees"))
    assert found["rouge_l"] == 1.0
    assert made[0] == (tokenizer, {"beams": 3})
