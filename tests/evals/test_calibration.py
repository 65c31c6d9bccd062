"""Calibration evaluators on a model of known logits: fitted on one source, reported on another."""

import dataclasses

import numpy as np
import pytest
from fake_runner import FakeRunner

from mmjax.data.source import Source
from mmjax.evals.evaluators import make_evaluators
from mmjax.evals.metrics import uncertainty
from mmjax.evals.metrics.calibration import log_softmax
from mmjax.evals.metrics.ensemble import ensemble_metrics
from mmjax.evaluate import check_evaluators
from mmjax.report.evaluated import Evaluated
from mmjax.report.sections import calibration as section
from mmjax.run import evaluation
from mmjax.run.evaluation import Runner
from mmjax.run.member import Member
from mmjax.workdir.checksum import digest

WORDS = ("red", "green", "blue")


class Tokenizer:
    def encode(self, texts, length):
        tokens = [[1 + next(i for i, w in enumerate(WORDS) if w in t)] for t in texts]
        text = np.pad(np.array(tokens), ((0, 0), (0, length - 1)))
        return text, text > 0


def batches(source, spec, size):
    for start in range(0, len(source), size):
        rows = [source[i] for i in range(start, start + size)]
        yield {
            "image": np.stack([r["image"] for r in rows]),
            "label": np.array([r["label"] for r in rows], np.int32),
            "example_id": np.arange(start, start + size),
        }


class Drawn(Source):
    """Images whose three gray values are logits, too large by a factor; labels follow them."""

    class_names = WORDS

    def __init__(self, seed=0, count=400):
        rng = np.random.default_rng(seed)
        self.pixels = rng.integers(0, 256, (count, 3), np.uint8)
        logits = self.pixels / 64
        self.labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        image = np.broadcast_to(self.pixels[i], (2, 2, 3))
        return {"image": image, "captions": ["red"], "label": int(self.labels[i])}


def embed(factor, batch):
    if "image" not in batch:
        return {
            "text_embed": np.eye(3, dtype=np.float32)[batch["text"][:, 0] - 1],
            "logit_scale": np.float32(factor / 64),
        }
    pixels = batch["image"][:, 0, 0].astype(np.float32)
    return {"image_embed": pixels, "logits": pixels * np.float32(factor / 64)}


@pytest.fixture(name="runner")
def fake_runner():
    return FakeRunner(
        embed=embed,
        open_source=lambda config: Drawn(**config),
        batches=batches,
        tokenizer=Tokenizer(),
        text_length=4,
        batch_size=4,
    )


def made(runner, **settings):
    given = {"kind": "calibration", "source": {"seed": 1}, "transform": "", **settings}
    return make_evaluators({"trust": given}, runner)["trust"]


def test_temperature_and_threshold_come_from_the_fit_source_alone(runner):
    evaluator = made(runner, fit_source={"seed": 2}, coverage=0.5)
    found = dict(evaluator.run(4.0))
    fit, test = Drawn(2), Drawn(1)
    logits = 4.0 * test.pixels / 64
    want = uncertainty.fit(4.0 * fit.pixels / 64, fit.labels, 0.5)
    assert found["temperature"] == pytest.approx(want.temperature, rel=1e-5)
    assert 3 < want.temperature < 5.5  # the factor, but for 400 examples
    for name, value in uncertainty.uncertainty_metrics(logits, test.labels).items():
        assert found[name] == pytest.approx(value, abs=1e-6)
    calibrated = uncertainty.uncertainty_metrics(logits / want.temperature, test.labels)
    for name, value in calibrated.items():
        assert found[f"calibrated/{name}"] == pytest.approx(value, abs=1e-4)
    assert found["calibrated/ece"] < found["ece"]
    confidence, right = uncertainty.confidences(logits / want.temperature, test.labels)
    kept = confidence >= want.threshold
    assert found["kept"] == pytest.approx(kept.mean(), abs=1e-6)
    assert found["kept_top1"] == pytest.approx(right[kept].mean())
    assert found["kept_top1"] > found["top1"]
    # The same of zero-shot logits: cosines times the model's scale.
    zero_shot = made(runner, kind="zero_shot_calibration", fit_source={"seed": 2}, coverage=0.5)
    assert dict(zero_shot.run(4.0)) == pytest.approx(found, abs=1e-5)


def test_evidence_is_a_distribution_with_a_doubt_of_its_own(runner):
    found = dict(made(runner, evidential=True).run(1.0))
    test = Drawn(1)
    alpha = 1 + np.exp(test.pixels / 64)
    want = uncertainty.uncertainty_metrics(np.log(alpha), test.labels)
    assert found["nll"] == pytest.approx(want["nll"], rel=1e-5)
    assert found["vacuity"] == pytest.approx((3 / alpha.sum(1)).mean(), rel=1e-5)
    assert "temperature" not in found and 0 < found["aurc_vacuity"] < 1


def test_an_ensemble_has_the_mean_probability_and_knows_what_its_members_disagree_about(runner):
    runner = dataclasses.replace(runner, members={"b": 0.5, "c": 4.0})
    alone, members = made(runner), made(runner, members=("b", "c"), fit_source={"seed": 2})
    test, factors = Drawn(1), (1.0, 0.5, 4.0)
    every = [np.float32(f / 64) * test.pixels.astype(np.float32) for f in factors]
    p = np.exp([log_softmax(x) for x in every]).mean(axis=0)
    found = dict(members.run(1.0))
    for name, value in uncertainty.uncertainty_metrics(np.log(p), test.labels).items():
        assert found[name] == pytest.approx(value, abs=1e-6)
    for name, value in ensemble_metrics(every, test.labels).items():
        assert found[name] == pytest.approx(value, abs=1e-6)
    singles = [dict(alone.run(f)) for f in factors]
    assert found["member_nll"] == pytest.approx(np.mean([s["nll"] for s in singles]), abs=1e-6)
    assert found["nll"] < found["member_nll"] and found["mutual_information"] > 0
    assert found["temperature"] > 0 and "mutual_information" not in singles[0]
    # A single run's results keep the fingerprint that they had before.
    assert "members" not in alone.settings() and members.fingerprint() != alone.fingerprint()
    same = dataclasses.replace(runner, members={"b": 1.0})
    doubts = dict(made(same, members=("b",), evidential=True).run(1.0))
    assert doubts["mutual_information"] == pytest.approx(0, abs=1e-12)
    assert doubts["vacuity"] == pytest.approx(
        dict(made(runner, evidential=True).run(1.0))["vacuity"]
    )
    zero_shot = made(runner, kind="zero_shot_calibration", members=("b", "c"))
    assert dict(zero_shot.run(1.0))["variance"] == pytest.approx(found["variance"], abs=1e-5)


def test_members_are_checked_before_training(runner):
    ensemble = made(runner, members=("b",), fit_source={"seed": 2})
    with pytest.raises(KeyError):
        ensemble.check()
    runner.members["b"] = 0.5
    assert set(check_evaluators({"trust": ensemble})) == {"trust.source", "trust.fit_source"}
    blind = dataclasses.replace(runner, embed=lambda factor, batch: {"image_embed": None})

    class Ensemble(FakeRunner):
        def open_member(self, workdir):
            return Member(blind, 1.0, 3, "a")

    runner = Ensemble(**{f.name: getattr(runner, f.name) for f in dataclasses.fields(runner)})
    with pytest.raises(ValueError, match="needs the output 'logits' and this model gives image_"):
        made(runner, members=("b",)).check()


def test_scores_of_members_are_computed_once_and_belong_to_their_checkpoint(runner):
    seen = []

    def counted(factor, batch):
        seen.append(factor)
        return embed(factor, batch)

    calls = 400 // 4  # of the model, for the scores of one source
    runner = dataclasses.replace(runner, embed=counted, members={"b": 0.5})
    first = made(runner, members=("b",), fit_source={"seed": 2})
    other = made(runner, members=("b",), coverage=0.5)
    own = 1.0
    with runner.kept.during(own):
        before = dict(first.run(own))
        assert seen.count(0.5) == 2 * calls  # both sources
        fingerprint = first.fingerprint()
        assert dict(other.run(own))["nll"] == before["nll"] and seen.count(0.5) == 2 * calls
        runner.members["b"] = 4.0  # trained further
        assert first.fingerprint() != fingerprint
        assert dict(first.run(own))["nll"] != before["nll"] and seen.count(4.0) == 2 * calls
    runner.members["c"] = 4.0
    with pytest.raises(ValueError, match="The members 'b' and 'c' have the same parameters"):
        made(runner, members=("b", "c")).check()


def test_a_run_opens_each_member_once(tmp_path, monkeypatch):
    opened = []

    def open_run(workdir):
        opened.append(workdir)
        return "run", {"params": {"w": np.full(3, 2.0, np.float32)}}, 7

    def init(self, run, workdir, progress):
        self._workdir, self._members, self.progress = workdir, {}, progress

    monkeypatch.setattr(evaluation, "open_run", open_run)
    monkeypatch.setattr(Runner, "__init__", init)
    runner = Runner("own", tmp_path / "own", print)
    member = runner.open_member(str(tmp_path / "b"))
    assert runner.open_member(f"{tmp_path}/x/../b") is member and len(opened) == 1
    assert member.step == 7 and member.runner.progress is print
    assert member.digest != digest({"params": {"w": np.full(3, 2.5, np.float32)}})
    with pytest.raises(ValueError, match="is the run itself, which is part of the ensemble"):
        runner.open_member(str(tmp_path / "own"))


def test_a_member_with_other_classes_is_refused(runner):
    other = dataclasses.replace(runner, class_names=("red", "blue", "green"))

    class Ensemble(FakeRunner):
        def open_member(self, workdir):
            return Member(other, 1.0, 3, "a")

    runner = Ensemble(**{f.name: getattr(runner, f.name) for f in dataclasses.fields(runner)})
    with pytest.raises(ValueError, match="The member 'b' has the classes red, blue, green"):
        list(made(runner, members=("b",)).run(1.0))


def test_the_report_shows_both_curves(runner):
    evaluated = Evaluated("trust", made(runner, fit_source={"seed": 2}), runner, 4.0, 0)
    data = section.SECTION.collect(evaluated)
    assert data.given.bins.count.sum() == 400 == data.calibrated.bins.count.sum()
    assert data.calibrated.metrics["ece"] < data.given.metrics["ece"]
    page = section.SECTION.html(data, 0)
    assert page.count("<img") == 2 and "Threshold for 80 % coverage" in page


def test_a_fit_on_the_reported_examples_is_refused(runner):
    with pytest.raises(ValueError, match="has its fit_source as source too"):
        made(runner, fit_source={"seed": 1})
    with pytest.raises(ValueError, match="has the coverage 0.0 and 15 bins"):
        made(runner, coverage=0.0)
