"""Evaluators on a toy model whose embeddings are known, so that every figure is known too."""

import dataclasses

import numpy as np
import pytest
from fake_runner import FakeRunner

from mmjax.data.source import Source
from mmjax.evals.evaluators import EVALUATORS, make_evaluators
from mmjax.evals.outputs import embed_images, embed_texts

WORDS = ("red", "green", "blue")


class Pictures(Source):
    """Plain images of one of three colors; the caption names it."""

    def __init__(self, count=11, class_names=WORDS):
        self.class_names = class_names
        self.labels = np.arange(count) % 3

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        image = np.zeros((2, 2, 3), np.uint8)
        image[..., self.labels[i]] = 255
        captions = [WORDS[self.labels[i]], f"color {WORDS[self.labels[i]]}"]
        return {"image": image, "captions": captions, "label": int(self.labels[i])}


def batches(source, spec, size):
    for start in range(0, len(source), size):
        rows = [source[i] for i in range(start, min(start + size, len(source)))]
        pad = size - len(rows)
        ids = list(range(start, start + len(rows))) + [-1] * pad
        rows += [rows[0]] * pad
        yield {
            "image": np.stack([r["image"] for r in rows]),
            "label": np.array([r["label"] for r in rows], np.int32),
            "example_id": np.array(ids, np.int64),
            "text": np.zeros((size, 4), np.int32),
        }


class Tokenizer:
    def encode(self, texts, length):
        tokens = [[1 + next(i for i, w in enumerate(WORDS) if w in t)] for t in texts]
        text = np.pad(np.array(tokens), ((0, 0), (0, length - 1)))
        return text, text > 0


def embed(params, batch):
    """Color as a unit vector; `params` turns the images by one color when it is 1."""
    if "image" not in batch:
        assert len(batch["text"]) == 4
        return {"text_embed": np.eye(3, dtype=np.float32)[batch["text"][:, 0] - 1]}
    colour = batch["image"][:, 0, 0].astype(np.float32) / 255
    turned = np.roll(colour, params, axis=1)
    # Without the image the first word stands for all.
    there = batch.get("image_present", np.ones(len(colour), bool))[:, None]
    logits = np.where(there, turned * 3, [[1.0, 0.0, 0.0]])
    return {"image_embed": turned, "image_features": colour * 7, "logits": logits}


@pytest.fixture
def runner():
    return FakeRunner(
        embed=embed,
        open_source=lambda config: Pictures(**config),
        batches=batches,
        tokenizer=Tokenizer(),
        text_length=4,
        batch_size=4,
    )


def preset(kind, **more):
    return {"kind": kind, "source": {"count": 11}, "transform": "decode", **more}


def run(runner, preset, params=0):
    return dict(make_evaluators({"name": preset}, runner)["name"].run(params))


def test_right_and_wrong_models_have_known_figures(runner):
    right = run(runner, preset("retrieval"))
    # A caption's text is shared by all images of its color, so the right model is perfect.
    assert right["text_to_image/recall@1"] == right["image_to_text/map"] == 1.0
    wrong = run(runner, preset("retrieval"), params=1)
    # Each color now takes another's place: 4 or 3 wrong images tie or stand before.
    assert wrong["text_to_image/recall@1"] == 0.0
    assert run(runner, preset("zero_shot"))["top1"] == 1.0
    assert run(runner, preset("zero_shot", templates=["color {}", "{}"]), params=1)["top1"] == 0.0
    assert run(runner, preset("classification"))["top1"] == 1.0
    assert run(runner, preset("classification"), params=1)["top1"] == 0.0
    fitted = {"train_source": {"count": 30}}
    assert run(runner, preset("linear_probe", **fitted), params=1)["top1"] == 1.0
    assert run(runner, preset("knn", **fitted))["top1"] == 1.0
    assert run(runner, preset("knn", features="image_embed", **fitted), params=1)["top1"] == 1.0
    health = run(runner, preset("embedding_health"))
    assert health["modality_gap"] == pytest.approx(0.0, abs=1e-6)
    assert health["alignment"] == pytest.approx(0.0)
    assert run(runner, preset("embedding_health"), 1)["alignment"] == pytest.approx(2.0)


def test_classification_without_a_modality(runner):
    # 4 of 11 images show the first color.
    both = {"modalities": ("image", "text")}
    without = run(runner, preset("classification", absent=("image",), **both))
    assert without["top1"] == 4 / 11
    assert run(runner, preset("classification", absent=("text",), **both))["top1"] == 1.0
    for absent in (("picture",), ("image", "text")):
        with pytest.raises(ValueError, match="leave at least one"):
            run(runner, preset("classification", absent=absent, **both))


def test_independent_classes(runner):
    def several(source, spec, size):
        """Every image also has the class after its color's."""
        for batch in batches(source, spec, size):
            one = np.eye(3, dtype=np.float32)[batch["label"]]
            yield batch | {"label_probs": one + np.roll(one, 1, axis=1)}

    both = dataclasses.replace(runner, batches=several)
    found = run(both, preset("multi_label", modalities=("image",)))
    # Of each class all images of its own color come first, then the two other colors, tied.
    count = np.bincount(np.arange(11) % 3)
    want = [(n + m * (n + m) / 11) / (n + m) for n, m in zip(count, np.roll(count, 1))]
    assert found == {"map": pytest.approx(np.mean(want))}
    with pytest.raises(ValueError, match="MultiLabel needs .'label_probs'."):
        run(runner, preset("multi_label", modalities=("image",)))


NAMES = ["image_embed", "text_embed"]


def test_every_example_is_counted_once_and_padding_never(runner):
    seen = []
    runner = dataclasses.replace(runner, progress=lambda *args: seen.append(args))
    out = embed_images(runner, 0, Pictures(11), "decode", NAMES)
    assert out.keys() == {"image_embed", "label", "present", "example_id"}
    assert out["example_id"].tolist() == list(range(11))
    np.testing.assert_array_equal(out["image_embed"].argmax(1), np.arange(11) % 3)
    assert seen[-1] == ("images", 11, 11)
    assert embed_texts(runner, 0, ["red", "blue"] * 3).argmax(1).tolist() == [0, 2] * 3

    def lossy(source, spec, size):
        yield from list(batches(source, spec, size))[:-1]

    def doubled(source, spec, size):
        yield from batches(source, spec, size)
        yield from batches(source, spec, size)

    def out_of_order(source, spec, size):
        yield from reversed(list(batches(source, spec, size)))

    for wrong in (lossy, doubled):
        with pytest.raises(ValueError, match="exactly once"):
            wrong = dataclasses.replace(runner, batches=wrong)
            embed_images(wrong, 0, Pictures(11), "decode", NAMES)
    shuffled = dataclasses.replace(runner, batches=out_of_order)
    shuffled = embed_images(shuffled, 0, Pictures(11), "decode", NAMES)
    np.testing.assert_array_equal(shuffled["label"], np.arange(11) % 3)


def test_fingerprint_changes_with_every_setting_and_only_then(runner):
    def fingerprint(preset):
        return make_evaluators({"x": preset}, runner)["x"].fingerprint()

    first = fingerprint(preset("zero_shot"))
    assert len(first) == 12
    int(first, 16)
    # A preset that spells a default out is the same preset.
    assert first == fingerprint(preset("zero_shot", templates="plain"))
    assert first == fingerprint(preset("zero_shot", templates=["{}"]))
    others = [
        preset("zero_shot", templates="photo"),
        preset("zero_shot", class_names=["a", "b"]),
        preset("retrieval"),
        preset("retrieval", captions_per_image=1),
        preset("zero_shot") | {"source": {"count": 12}},
        preset("zero_shot") | {"transform": "decode | resize(8)"},
    ]
    assert len({first, *map(fingerprint, others)}) == 7


def test_sounds_are_classified_as_images_are(runner):
    """By the outputs of another tower, for examples that have a sound."""
    heard = dataclasses.replace(
        runner,
        batches=lambda *args: (
            {"audio" if k == "image" else k: x for k, x in batch.items()}
            for batch in runner.batches(*args)
        ),
        embed=lambda p, b: {
            k.replace("image", "audio"): x
            for k, x in runner.embed(p, {"image" if k == "audio" else k: b[k] for k in b}).items()
        },
    )
    plain = preset("zero_shot")
    assert run(heard, preset("zero_shot", modality="audio")) == run(runner, plain)
    plain, spelled, other = (
        make_evaluators({"x": preset("zero_shot", **more)}, runner)["x"].fingerprint()
        for more in ({}, {"modality": "image"}, {"modality": "audio"})
    )
    assert plain == spelled != other
    with pytest.raises(ValueError, match="modality is 'text': use 'image', 'audio' or 'video'"):
        make_evaluators({"x": preset("zero_shot", modality="text")}, runner)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (preset("retreival"), r"config.evals.x.kind is 'retreival'.*nearest: 'retrieval'"),
        (preset("knn", train_source={}, K=3), r"config.evals.x.K is not a setting of 'knn'"),
        (preset("zero_shot", template="plain"), r"nearest: 'templates'"),
        (preset("linear_probe"), r"config.evals.x has no \['train_source'\]"),
        ({"kind": "retrieval", "source": {}}, r"has no \['transform'\]"),
    ],
)
def test_a_wrong_preset_is_one_clear_sentence(runner, wrong, message):
    with pytest.raises(ValueError, match=message):
        make_evaluators({"x": wrong}, runner)


def test_an_evaluator_that_the_model_cannot_serve_says_so(runner):
    blind = dataclasses.replace(runner, embed=lambda p, b: {"image_embed": b["image"][:, 0, 0]})
    with pytest.raises(ValueError, match=r"Classification needs \['logits'\]"):
        run(blind, preset("classification"))
    with pytest.raises(ValueError, match="no tokenizer"):
        run(dataclasses.replace(runner, tokenizer=None), preset("zero_shot"))
    nameless = preset("zero_shot") | {"source": {"class_names": None}}
    with pytest.raises(ValueError, match="no class names"):
        run(runner, nameless)


PROMPTS = {"train_source": {}, "shots": 2, "image_token": 1, "length": 9}
MORE = {
    "linear_probe": {"train_source": {}},
    "knn": {"train_source": {}},
    "vqa": {"train_source": {}},
    "modality_ablation": {"modalities": ["image", "text"]},
    "modality_gap": {"train_source": {}},
    "few_shot": PROMPTS,
    "few_shot_classification": PROMPTS,
    "tool_use": {"decode": {}},
    "grounded_answers": {"decode": {}, "train_source": {}},
}


def test_every_kind_makes_an_evaluator(runner):
    runner = dataclasses.replace(runner, write=lambda _: None, draw=lambda _: None)
    for kind in EVALUATORS:
        made = make_evaluators({"x": preset(kind, **MORE.get(kind, {}))}, runner)["x"]
        assert type(made) is EVALUATORS[kind] and made.settings()["kind"] == kind


# ---------------------------------------------------------------- what is absent


class Gaps(Pictures):
    """Images of which every fourth is absent, and every fifth has no caption."""

    def __getitem__(self, i):
        example = super().__getitem__(i)
        return {**example, "captions": example["captions"] if i % 5 else []}


def some_absent(source, spec, size):
    for batch in batches(source, spec, size):
        gone = isinstance(source, Gaps) & (batch["example_id"] % 4 == 3)
        # A blank image would be of no color, and every figure wrong.
        image = np.where(gone[:, None, None, None], np.uint8(0), batch["image"])
        yield {**batch, "image": image, "image_present": ~gone & (batch["example_id"] >= 0)}


@pytest.fixture
def gappy(runner):
    opened = lambda config: (Gaps if config.get("gaps") else Pictures)(config.get("count", 11))  # noqa: E731
    return dataclasses.replace(runner, open_source=opened, batches=some_absent)


@pytest.mark.parametrize("count", [11, 12])
def test_absent_examples_are_left_out_and_counted(gappy, count):
    gaps = {"source": {"count": count, "gaps": True}}
    fitted = {"train_source": {"count": 30, "gaps": True}}
    absent = sum(i % 4 == 3 for i in range(count))
    unpaired = sum(i % 4 == 3 or i % 5 == 0 for i in range(count))
    for kind, more, left_out in (
        ("zero_shot", {}, absent),
        ("classification", {}, absent),
        ("knn", fitted, absent),
        ("linear_probe", fitted, absent),
    ):
        found = run(gappy, preset(kind, **more) | gaps)
        assert found["top1"] == 1.0, kind
        assert found["absent"] == left_out, kind
    captioned = [i for i in range(count) if i % 4 != 3]
    # An example without a caption of its own has its class's name, and so is a pair.
    found = run(gappy, preset("retrieval", captions_per_image=1) | gaps)
    assert found["text_to_image/recall@1"] == found["image_to_text/map"] == 1.0
    assert found["absent"] == count - len(captioned)
    nameless = dataclasses.replace(gappy, open_source=lambda c: Gaps(count, class_names=None))
    pairs = make_evaluators({"x": preset("retrieval")}, nameless)["x"].pairs(0)
    assert pairs.absent == unpaired and len(pairs.texts) == 2 * (count - unpaired)
    assert pairs.places.tolist() == [i for i in range(count) if i % 4 != 3 and i % 5]
    of = pairs.places[pairs.text_image_index] % 3
    assert [WORDS[c] in t for c, t in zip(of, pairs.texts)] == [True] * len(pairs.texts)
    assert run(nameless, preset("embedding_health"))["absent"] == unpaired


def test_nothing_present_says_so(runner):
    def all_absent(source, spec, size):
        for batch in batches(source, spec, size):
            yield {**batch, "image_present": np.zeros(size, bool)}

    with pytest.raises(ValueError, match="Classification has nothing to evaluate: all 11 examples"):
        run(dataclasses.replace(runner, batches=all_absent), preset("classification"))
    assert "absent" not in run(runner, preset("classification"))


@pytest.mark.parametrize("kind", ["classification", "knn", "linear_probe"])
def test_labels_are_matched_by_the_names_of_their_classes(kind):
    """Trained on red, green, blue; the source knows green and red alone, in that order."""

    class Two(Pictures):
        def __init__(self, count=12, both=False):
            super().__init__(count, WORDS if both else ("green", "red"))
            self.labels = np.arange(count) % len(self.class_names)  # of WORDS

        def __getitem__(self, i):
            example = super().__getitem__(i)
            return example | {"label": self.class_names.index(WORDS[example["label"]])}

    runner = FakeRunner(
        embed=embed, open_source=lambda c: Two(**c), batches=batches, batch_size=4,
        class_names=WORDS,
    )  # fmt: skip
    more = {} if kind == "classification" else {"train_source": {"count": 12, "both": True}}
    settings = {"kind": kind, "source": {"count": 6}, "transform": "decode", **more}
    evaluator = make_evaluators({"x": settings}, runner)["x"]
    assert dict(evaluator.run(0))["top1"] == 1.0
    if kind == "classification":
        assert evaluator.predictions(0).class_names == list(
            WORDS
        )  # a head larger than the source's classes


def test_zero_shot_matches_its_class_names_by_name(runner):
    """In another order, or as other words for the classes; not a mixture of both."""
    for names in (["blue", "red", "green"], ["dark red", "green", "dark blue"]):
        assert run(runner, preset("zero_shot", class_names=names))["top1"] == 1.0
    evaluator = make_evaluators(
        {"x": preset("zero_shot", class_names=["green", "dark red", "blue"])}, runner
    )["x"]
    with pytest.raises(ValueError, match="'red' of the source is not among those of class_names"):
        evaluator.check()


@pytest.mark.parametrize("kind", ["classification", "knn"])
def test_classes_that_cannot_be_matched_are_refused_before_training(runner, kind):
    more = {} if kind == "classification" else {"train_source": {"class_names": ["red", "green"]}}
    settings = {"kind": kind, "source": {}, "transform": "decode", **more}
    known = dataclasses.replace(runner, class_names=["red", "green"])
    with pytest.raises(ValueError, match="'blue' of .*source is not among those of"):
        make_evaluators({"x": settings}, known)["x"].check()
