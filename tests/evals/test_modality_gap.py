"""Separability and treatments of the modality gap against closed forms; the evaluator."""

import numpy as np
import pytest
from fake_runner import FakeRunner

from mmjax.data.source import Source
from mmjax.evals.embedding_health import modality_gap
from mmjax.evals.evaluators import make_evaluators
from mmjax.evals.metrics.gap_treatments import TREATMENTS, linear_separability, unit

RNG = np.random.default_rng(0)


def test_separability_of_what_is_apart_of_what_is_mixed_and_of_a_known_overlap():
    x, y = RNG.normal(size=(2, 4000, 3))
    assert linear_separability(x, y) == pytest.approx(0.5, abs=0.02)
    assert linear_separability(x, y + [[20, 0, 0]]) == 1.0
    # Gaussians d apart along one axis: the best plane is right with probability Phi(d / 2).
    assert linear_separability(x, y + [[0, 2, 0]]) == pytest.approx(0.8413, abs=0.01)
    # More dimensions than embeddings: fitting them all shows nothing on the other half.
    x, y = RNG.normal(size=(2, 40, 300))
    assert linear_separability(x, y) < 0.8
    with pytest.raises(ValueError, match="separability of 3 and 40 embeddings .* four or more"):
        linear_separability(x[:3], y)


def test_treatments_close_the_gap_they_are_fitted_on():
    image = unit(RNG.normal(size=(300, 6)) + 1.0)
    text = unit(RNG.normal(size=(300, 6)) - 1.0)
    embeds = image, text
    assert modality_gap(*embeds) > 0.8
    for name in ("shift", "center", "standardize"):
        assert modality_gap(*TREATMENTS[name](embeds, embeds)) == pytest.approx(0, abs=1e-9)
    standard = TREATMENTS["standardize"](embeds, embeds)
    np.testing.assert_allclose(standard[1].std(axis=0), 1, rtol=1e-9)
    gap = image.mean(0) - text.mean(0)
    for x in TREATMENTS["project"](embeds, embeds):
        np.testing.assert_allclose(x @ gap, 0, atol=1e-9)
    np.testing.assert_array_equal(TREATMENTS["none"](embeds, embeds)[0], image)
    # Fitted on others: a constant is taken off, whatever the embeddings are.
    moved = TREATMENTS["center"](embeds, (image + 3.0, text))
    np.testing.assert_allclose(moved[0], image + 3.0 - image.mean(0), atol=1e-12)


class Pairs(Source):
    """Pairs of vectors: the text's is the image's next, plus `gap` along a third axis."""

    def __init__(self, count, gap):
        self.name, self.class_names, self.count, self.gap = "pairs", None, count, gap

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        angle = 2 * np.pi * i / self.count
        image = np.array([np.cos(angle), np.sin(angle), 0.0])
        text = np.array([np.cos(angle + 0.01), np.sin(angle + 0.01), self.gap])
        return {"captions": [f"number {i}"], "image_features": image, "text_features": text}


def batches(source, spec, size):
    for start in range(0, len(source), size):
        ids = [i if i < len(source) else -1 for i in range(start, start + size)]
        rows = [source[max(i, 0)] for i in ids]
        arrays = {k: np.stack([r[k] for r in rows]) for k in ("image_features", "text_features")}
        yield {**arrays, "example_id": np.array(ids, np.int64)}


def test_the_evaluator_fits_on_the_training_set_and_counts_each_pair_once():
    runner = FakeRunner(
        open_source=lambda config: Pairs(config["count"], config["gap"]),
        batches=batches,
        embed=lambda _, batch: {
            f"{m}_embed": unit(batch[f"{m}_features"]).astype(np.float32) for m in ("image", "text")
        },
    )
    settings = {"kind": "modality_gap", "transform": "first_features"}
    settings |= {"source": {"count": 30, "gap": 1.0}, "train_source": {"count": 50, "gap": 1.0}}
    found = dict(make_evaluators({"x": settings}, runner)["x"].run({}))
    assert set(found) == {
        f"{t}/{m}"
        for t in TREATMENTS
        for m in ("gap", "separability", "alignment", "recall@1", "recall@5")
    }
    # The text is (cos, sin, 1) / sqrt 2: its centroid is that far away, and a plane parts them.
    assert found["none/gap"] == pytest.approx(0.5**0.5, abs=1e-6)
    assert found["none/separability"] == 1.0 and found["none/recall@1"] == 1.0
    for treatment in ("center", "standardize", "project"):
        assert found[f"{treatment}/gap"] == pytest.approx(0, abs=1e-6)
        assert found[f"{treatment}/recall@1"] == 1.0
    # Both 1 / sqrt 8 high, over circles of radius 1 and sqrt 1/2, then made unit vectors.
    want = 5**-0.5 - 1 / 3
    assert found["shift/gap"] == pytest.approx(want, abs=1e-6)
    # Fitted on a training set without a gap, they leave it.
    plain = settings | {"train_source": {"count": 50, "gap": 0.0}, "treatments": ("center",)}
    found = dict(make_evaluators({"x": plain}, runner)["x"].run({}))
    assert found["center/gap"] == pytest.approx(0.5**0.5, abs=1e-6)


def test_bad_treatments_are_named():
    settings = {"kind": "modality_gap", "source": {}, "train_source": {}, "transform": ""}
    runner = FakeRunner(open_source=None, batches=None)
    for names, message in (
        (("centre",), "evals.x: 'centre' is no treatment .* Did you mean 'center'"),
        ((), "treatments of a modality_gap are empty"),
    ):
        with pytest.raises(ValueError, match=message):
            make_evaluators({"x": {**settings, "treatments": names}}, runner)
