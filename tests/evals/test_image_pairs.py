"""Accuracy and consistency of sentences about two images, on a model whose answers are known."""

import numpy as np
import pytest
from fake_runner import FakeRunner

from mmjax.data.source import Source
from mmjax.evals.evaluators import make_evaluators
from mmjax.evals.image_pairs import consistency

SENTENCES = ("up", "down", "strange")


class Statements(Source):
    """Each of three sentences with four pairs; an image's first pixel is the truth."""

    class_names = ["false", "true"]

    def __init__(self, kinds=True):
        self.name, self.kinds = "statements", kinds

    def __len__(self):
        return 12

    def __getitem__(self, i):
        return {**self.meta(i), "image": np.full((2, 1, 1, 3), i % 2, np.uint8)}

    def meta(self, i):
        found = {"captions": [SENTENCES[i // 4]], "label": i % 2}
        kind = "hard" if i >= 8 else "easy"
        more = {"sentence_id": SENTENCES[i // 4], "statement_type": kind} if self.kinds else {}
        return found | more


def batches(source, spec, size):
    for start in range(0, len(source), size):
        rows = [source[i] for i in range(start, start + size)]
        yield {
            "image": np.stack([row["image"] for row in rows]),
            "text": np.array([[SENTENCES.index(row["captions"][0])] for row in rows]),
            "label": np.array([row["label"] for row in rows], np.int32),
            "example_id": np.arange(start, start + size),
        }


def embed(wrong, batch):
    """The truth in the image, but for the examples in `wrong`; without the image, true."""
    here = batch.get("image_present", np.ones(len(batch["image"]), bool))
    truth = np.where(here, batch["image"][:, 0, 0, 0, 0], 1) ^ np.isin(batch["example_id"], wrong)
    return {"logits": np.eye(2, dtype=np.float32)[truth]}


def run(wrong, train=None, **source):
    runner = FakeRunner(
        embed=embed, open_source=lambda config: Statements(**config), batches=batches, batch_size=4
    )
    settings = {"kind": "image_pairs", "source": source, "transform": "", "train_source": train}
    return dict(make_evaluators({"name": settings}, runner)["name"].run(wrong))


def test_metrics_by_hand():
    found = run([0, 8, 9], train={})
    assert found == {
        "accuracy": pytest.approx(9 / 12),
        "consistency": pytest.approx(1 / 3),  # of the sentences only "down" has no wrong pair
        "type_easy": pytest.approx(7 / 8),
        "type_hard": pytest.approx(2 / 4),
        "majority": 0.5,
        "without_image/accuracy": pytest.approx(0.5, abs=0.26),
        "sentence_only/accuracy": 0.5,
    }
    assert run([])["accuracy"] == run([])["consistency"] == 1.0
    assert run([])["without_image/accuracy"] == 0.5


def test_a_source_without_groups_has_accuracy_alone():
    assert set(run([1], kinds=False)) == {"accuracy", "majority", "without_image/accuracy"}


def test_consistency_is_that_of_the_official_script():
    rng = np.random.default_rng(0)
    right, sentence = rng.random(200) < 0.8, [f"dev-{i}-0" for i in rng.integers(0, 40, 200)]
    consistent = {}
    for ok, name in zip(right, sentence):  # as in nlvr2/eval/metrics.py
        consistent[name] = consistent.get(name, True) and bool(ok)
    assert consistency(right, sentence) == pytest.approx(np.mean([*consistent.values()]))
