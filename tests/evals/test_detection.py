"""Detection and grounding with a model that knows the answers."""

import numpy as np
import pytest
from fake_runner import FakeRunner
from jax import ShapeDtypeStruct

from mmjax.data import rle
from mmjax.data.pipeline import eval_batches
from mmjax.data.regions import into_frame, of_masks
from mmjax.data.source import Source
from mmjax.data.transforms.parse import parse
from mmjax.evals.detection import best_boxes
from mmjax.evals.evaluators import make_evaluators
from mmjax.report.gather import gather_report

NAMES = ["cat", "dog", "red bus"]
PHRASES = ["left one", "right one"]


class Images(Source):
    """Images of 60 x 90 with two objects, the second a crowd in the last image."""

    name, class_names = "images", NAMES

    def __len__(self):
        return 5

    def __getitem__(self, i):
        masks = np.zeros((2, 60, 90), bool)
        masks[0, 10 + i : 50, 4:40], masks[1, 20:30, 50 : 60 + 4 * i] = True, True
        regions = of_masks([rle.encode(m) for m in masks], [i % 3, (i + 1) % 3], 60, 90)
        regions.crowd[1] = i == 4
        image = np.zeros((60, 90, 3), np.uint8)
        return {"key": f"{i}", "image": image, "regions": regions, "phrases": PHRASES}


class Federated(Images):
    frequency = ["r", "c", "f"]

    def __getitem__(self, i):
        return super().__getitem__(i) | {"negative": [(i + 2) % 3], "not_exhaustive": []}


class Tokenizer:
    """A text is the number of its name."""

    def encode(self, texts, length):
        known = NAMES + PHRASES
        tokens = [[1 + next(n for n, name in enumerate(known) if name in t)] for t in texts]
        text = np.pad(np.asarray(tokens), ((0, 0), (0, length - 1)))
        return text, text > 0

    def rows(self, texts, length):
        text, mask = self.encode(texts, length)
        return text, mask, np.zeros(len(texts), int)

    def count(self, *_):
        pass


def model(shift=0.0, certain=True):
    """(variables, batch) -> outputs: two boxes, moved to the right, among 6 of nothing."""

    def embed(variables, batch):
        out = {}
        queries = batch.get("query_embed")
        if "text" in batch:
            eye = np.eye(5, dtype=np.float32)
            queries = out["text_embed"] = eye[batch["text"][..., 0].clip(1) - 1]
        if "image" not in batch:
            return out
        boxes, classes = np.zeros((len(batch["image"]), 6, 4)), np.zeros((6, 5), np.float32)
        logits = np.full((len(boxes), 6, queries.shape[1]), -9.0, np.float32)
        for row, i in enumerate(batch["example_id"]):
            example = variables["source"][int(i) // variables["repeat"] if i >= 0 else 0]
            known = into_frame(example["regions"].boxes, variables["frame"](example))
            boxes[row, :2] = known + np.asarray([shift, 0, shift, 0])
            classes[:] = 0
            for n, label in enumerate(example["regions"].labels):
                classes[n, label] = classes[n, 3 + n] = 1
            found = classes @ queries[row].T
            logits[row] = np.where(found > 0.5, 3.0 if certain else -2.0, -9.0)
        return {**out, "pred_boxes": boxes, "query_logits": logits}

    return embed


def make(kind, source, transform, embed, **settings):
    """(runner, the evaluator)."""

    def batches(source, spec, size):
        step = parse(spec, tokenizer=Tokenizer(), class_names=source.class_names)
        return eval_batches(source, step, batch_size=size)

    runner = FakeRunner(
        open_source=lambda config: source,
        batches=batches,
        embed=embed,
        tokenizer=Tokenizer(),
        batch_size=4,
        spec={"text": ShapeDtypeStruct((1, 2, 3), np.int32)},
    )
    settings = {"kind": kind, "source": {}, "transform": transform, **settings}
    return runner, make_evaluators({"boxes": settings}, runner)["boxes"]


def evaluated(kind, source, transform, embed, frame=lambda example: (0, 0, 1, 1), **settings):
    _, evaluator = make(kind, source, transform, embed, **settings)
    variables = {"source": source, "frame": frame, "repeat": 2 if kind == "grounding" else 1}
    return dict(evaluator.run(variables))


FRAMES = {
    "decode | resize((48, 48)) | regions(1)": lambda e: (0, 0, 1, 1),
    "decode | pad_square | resize(48) | regions(1)": lambda e: (0, 0, 1, 1.5),
    "decode | flip(1.0) | resize(48) | regions(1)": lambda e: (1, 0, 0, 1),
}


@pytest.mark.parametrize("transform", FRAMES)
def test_a_perfect_detector_in_any_frame(transform):
    found = evaluated("detection", Images(), transform, model(), FRAMES[transform])
    assert found["ap"] == pytest.approx(1) and found["ar100"] == pytest.approx(1)
    assert found["ap_medium"] == pytest.approx(1) and "ap_large" not in found


def test_a_box_that_is_off_counts_at_low_thresholds():
    found = evaluated("detection", Images(), "decode | resize(48) | regions(1)", model(0.02))
    assert found["ap50"] == pytest.approx(1) and 0.3 < found["ap"] < 0.95
    limited = evaluated("detection", Images(), "decode | regions(1)", model(), limit=1)
    assert limited["ar100"] < 0.7


def test_lvis_numbers_of_a_source_with_frequencies():
    found = evaluated("detection", Federated(), "decode | regions(1)", model())
    assert found["ap_rare"] == found["ap_frequent"] == pytest.approx(1) and "ar" in found


def test_best_boxes_are_pairs_of_a_box_and_a_class():
    logits = np.asarray([[[0.0, 3.0], [1.0, -1.0]]])
    boxes = np.asarray([[[0, 0, 1, 1], [0, 0, 0.5, 0.5]]])
    found = best_boxes(boxes, logits, 3)
    assert found["labels"].tolist() == [[1, 0, 0]]
    np.testing.assert_allclose(found["scores"], 1 / (1 + np.exp([[-3.0, -1, 0]])))
    assert found["boxes"][0, :, 2].tolist() == [1, 0.5, 1]
    assert best_boxes(boxes, logits, 100)["labels"].shape == (1, 4)


GROUNDING = "decode | resize((48, 72)) | regions(1) | first_caption | tokenize(3)"


def test_phrases_are_grounded():
    found = evaluated("grounding", Images(), GROUNDING, model())
    # The crowd is left out of the arrays.
    assert found.pop("absent") == 1
    assert found["accuracy"] == found["recall_5"] == 1
    # Tokens 0 and 1 of 2 x 3 have the boxes: only the left one is in that part of the image.
    assert 0 <= found["pointing_game"] <= 1
    assert evaluated("grounding", Images(), GROUNDING, model(0.5))["accuracy"] == 0


def test_the_report_shows_annotated_and_found_boxes():
    source = Images()
    runner, evaluator = make("detection", source, "decode | regions(1)", model(0.1))
    variables = {"source": source, "frame": lambda example: (0, 0, 1, 1), "repeat": 1}
    found = gather_report(runner, variables, {"boxes": evaluator}).sections["regions"]["boxes"]
    assert len(found) == 5 and sorted(found[0].names[:2]) == ["cat", "dog"]
    assert found[0].annotated.shape == (213, 320, 3)
    assert (found[0].annotated[100, 60] > 0).any()  # the mask
    left, top, right = 4 / 90, 10 / 60, 40 / 90
    color = found[0].annotated[round(213 * top) + 1, round(320 * (left + right) / 2)]
    moved = found[0].found[round(213 * top) + 1, round(320 * ((left + right) / 2 + 0.1))]
    assert color.max() > 200 and np.array_equal(color, moved)


def test_what_does_not_fit_is_refused():
    class Nameless(Images):
        class_names = None

        def __getitem__(self, i):
            return {k: v for k, v in super().__getitem__(i).items() if k != "phrases"}

    runner = FakeRunner(open_source=lambda config: Nameless(), batches=None)
    settings = {"source": {}, "transform": "decode"}
    kinds = {kind: {"kind": kind, **settings} for kind in ("detection", "grounding")}
    evaluators = make_evaluators(kinds, runner)
    with pytest.raises(ValueError, match="asks for the class names of its source"):
        evaluators["detection"]._check_source(Nameless())
    with pytest.raises(ValueError, match=r"end its transform with regions\(1\)"):
        evaluators["detection"]._check_row({"image": np.zeros(1)})
    with pytest.raises(ValueError, match="needs phrases of regions"):
        evaluators["grounding"]._check_source(Nameless())
    with pytest.raises(ValueError, match="needs boxes and its transform gives image"):
        evaluators["grounding"]._check_row({"image": np.zeros(1)})
