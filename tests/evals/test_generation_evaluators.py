"""Captioning, VQA, perplexity and ablation on stand-ins for systems whose answers are known."""

import dataclasses
import types

import jax
import numpy as np
import pytest
import scipy.special
import toy
from shapes import (
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
        runner.sample({})
    made = []

    def generate(tokenizer, settings):
        made.append((tokenizer, settings))

        def write(params, batch, seed):
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
