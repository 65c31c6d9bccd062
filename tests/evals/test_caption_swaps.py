"""Winoground's scores by loops and by chance, and the evaluator on a model of known embeddings."""

import numpy as np
import pytest
from fake_runner import FakeRunner

from mmjax.data.source import Source
from mmjax.evals.evaluators import make_evaluators
from mmjax.evals.metrics.compositionality import winoground_scores


def test_scores_are_those_of_loops_and_random_ones_are_chance():
    scores = np.random.default_rng(0).normal(size=(60_000, 2, 2))
    found = winoground_scores(scores)
    text = image = group = 0
    for s in scores[:500]:  # s[caption][image]
        t = s[0][0] > s[1][0] and s[1][1] > s[0][1]
        i = s[0][0] > s[0][1] and s[1][1] > s[1][0]
        text, image, group = text + t, image + i, group + (t and i)
    few = winoground_scores(scores[:500])
    assert [few[k] * 500 for k in ("text_score", "image_score", "group_score")] == pytest.approx(
        [text, image, group]
    )
    # The chances of Thrush et al. 2022, table 3.
    assert found["text_score"] == pytest.approx(0.25, abs=0.01)
    assert found["image_score"] == pytest.approx(0.25, abs=0.01)
    assert found["group_score"] == pytest.approx(1 / 6, abs=0.01)
    assert winoground_scores(np.ones((3, 2, 2)))["text_score"] == 0  # equal scores are wrong


ROWS = (  # own caption, swapped caption, kind, group: the image's embedding follows the caption
    ("a", "b", "color", "1"),
    ("b", "a", "color", "1"),
    ("c", "d", "order", ""),
    ("e", "f", "order", "2"),
    ("f", "e", "order", "2"),
)
EMBED = {"a": (1, 0), "b": (0, 1), "c": (1, 0), "d": (0.6, 0.8), "e": (1, 0), "f": (1, 0)}


class Swaps(Source):
    name, class_names = "swaps", None

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, i):
        own, other, kind, group = ROWS[i]
        image = np.full((2, 2, 3), ord(own), np.uint8)
        swap = {"swapped_captions": [other], "swap_kind": kind, "group": group}
        return {"image": image, "captions": [own], **swap}


class Letters:
    def encode(self, texts, length):
        text = np.array([[ord(t)] + [0] * (length - 1) for t in texts])
        return text, text > 0


def embed(params, batch):
    letters = batch["image"][:, 0, 0, 0] if "image" in batch else batch["text"][:, 0]
    found = np.asarray([EMBED[chr(x)] for x in letters], np.float32)
    return {"image_embed" if "image" in batch else "text_embed": found}


def batches(source, spec, size):
    rows = [source[i] for i in range(len(source))]
    yield {
        "image": np.stack([r["image"] for r in rows]),
        "example_id": np.arange(len(rows)),
    }


def test_the_evaluator_counts_kinds_and_groups():
    runner = FakeRunner(
        embed=embed,
        open_source=lambda config: Swaps(),
        batches=batches,
        tokenizer=Letters(),
        text_length=4,
        batch_size=5,
    )
    config = {"kind": "caption_swaps", "source": {}, "transform": ""}
    found = dict(make_evaluators({"swaps": config}, runner)["swaps"].run(None))
    # a, b and c are right; e and f have one embedding, which is wrong.
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert (found["accuracy/color"], found["accuracy/order"]) == pytest.approx((1, 1 / 3))
    assert found["groups"] == 2 and found["group_score"] == found["text_score"] == 0.5
    assert (found["group_score/color"], found["group_score/order"]) == (1, 0)
