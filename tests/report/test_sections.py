"""Sections appear where their data exist, and nowhere else; confusions of few and many classes."""

import html.parser
import re
import tracemalloc

import numpy as np
import pytest

from mmjax.evals.image_text import Pairs
from mmjax.evals.metrics.uncertainty import Fitted
from mmjax.report.evaluated import Evaluated
from mmjax.report.gather import ReportData
from mmjax.report.page import write_report
from mmjax.report.sections import health, regions
from mmjax.report.sections.attention import Attention
from mmjax.report.sections.calibration import Trust, curves
from mmjax.report.sections.captions import CaptionExample
from mmjax.report.sections.confusion import SECTION, Confusion, count_pairs
from mmjax.report.sections.grounding import Grounding
from mmjax.report.sections.health import Health
from mmjax.report.sections.retrieval import Hit, Query, RetrievalExamples
from mmjax.report.sections.samples import Sample, Samples
from mmjax.report.sections.sounds import Sound
from mmjax.report.sections.table import SECTIONS
from mmjax.report.sections.videos import Video

IMAGE = np.full((8, 8, 3), 90, np.uint8)
QUERY = Query(0, 1, 0, [Hit(0, 0.5, True)])
HEALTH = {"positive_cosine": 0.5, "negative_cosine": 0.1, "modality_gap": 0.2, "alignment": 0.3}
HEALTH |= {"uniformity_image": -1.0, "uniformity_text": -2.0}

CURVES = curves(np.array([[1.0, 0.0], [0.0, 1.0], [0.3, 0.0]]), np.array([0, 1, 1]), 5)

# The smallest data of every section; a new section needs a line here.
DATA = {
    "retrieval": RetrievalExamples([QUERY], [QUERY], {0: IMAGE}, ["a cat"], {0: ["a cat"]}, 1),
    "confusion": count_pairs(np.array([0, 1]), np.array([0, 0]), ["cat", "dog"]),
    "calibration": Trust("seen", CURVES, CURVES, Fitted(2.0, 0.6, 0.8)),
    "regions": [regions.Example(IMAGE, IMAGE, ["cat"], [0.5])],
    "captions": [CaptionExample(IMAGE, "a cat", ["the cat"], "")],
    "samples": Samples([Sample("a cat", {"sample": IMAGE})], {100: IMAGE}),
    "attention": Attention(IMAGE[None], np.full((1, 2, 2), 0.25)),
    "grounding": [Grounding(IMAGE, "a cat", 0.5, ["cat"], np.ones((1, 2, 2)))],
    "sounds": [Sound(np.zeros(1600, np.float32), "dog", "cat")],
    "videos": [Video(IMAGE[None], 0.5, "a cat")],
    "health": Health(
        "seen", "", np.linspace(-1, 1, 5), np.ones(4), np.ones(4), HEALTH, np.eye(2), -np.eye(2)
    ),
}


def sections_of(tmp_path, data):
    """The names of the sections of a report of nothing but these data."""
    path = tmp_path / "report.html"
    write_report(path, tmp_path, title="t", facts={}, results={}, data=data, config={})
    return re.findall(r'<section id="([a-z-]+?)(?:-\d)?"', path.read_text())


@pytest.mark.parametrize("key", SECTIONS)
def test_a_section_appears_if_and_only_if_it_has_data(tmp_path, key):
    data = ReportData(sections={key: {"seen": DATA[key]}})
    assert sections_of(tmp_path, data) == [key, "run"]


def test_sections_keep_the_order_of_the_table(tmp_path):
    data = ReportData(sections={key: {"seen": DATA[key]} for key in reversed(SECTIONS)})
    assert sections_of(tmp_path, data) == [*SECTIONS, "run"]
    assert sections_of(tmp_path, ReportData()) == ["run"]


def text_of(page):
    found = []
    parser = html.parser.HTMLParser()
    parser.handle_data = found.append
    parser.feed(page)
    return " ".join(found)


def test_pairs_are_counted_as_in_the_matrix():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 7, (2, 500))
    found = count_pairs(labels, predictions, [str(i) for i in range(7)])
    want = np.zeros((7, 7), int)
    for label, prediction in zip(labels, predictions):
        want[label, prediction] += 1
    np.testing.assert_array_equal(found.matrix(), want)
    assert (found.right, found.total) == (np.trace(want), 500)
    np.fill_diagonal(want, 0)
    counts = [count for *_, count in found.mistakes(100)]
    assert counts == sorted(want[want > 0].tolist(), reverse=True)
    assert all(want[int(a), int(b)] == count for a, b, count in found.mistakes(5))


def test_a_few_classes_are_a_table_and_more_are_a_heat_map():
    names = [f"class {i}" for i in range(40)]
    labels = np.array([*range(40), *range(40), 5, 5])
    predictions = np.array([*range(40), *range(40), 7, 7])
    drawn = SECTION.html(count_pairs(labels, predictions, names), 0)
    assert "80 of 82 correct" in drawn and drawn.count("<img") == 1
    assert re.search(r"class 5\s+class 7\s+2", text_of(drawn))
    kept = labels < 3
    table = SECTION.html(count_pairs(labels[kept], predictions[kept], names[:3]), 0)
    assert "<img" not in table and table.count('scope="row"') == 3
    assert table.count('scope="col"') == 3  # nothing was confused


def test_twenty_one_thousand_classes_take_little_memory():
    """A dense matrix of them has 3.5 GB; labels, predictions and pairs have a few MB."""
    classes, each = 21_000, 3
    names = [f"synset {i}" for i in range(classes)]
    labels = np.repeat(np.arange(classes), each)
    predictions = labels.copy()
    predictions[::2] = (predictions[::2] + 1) % classes
    predictions[labels == 77] = 99
    tracemalloc.start()
    try:
        found = count_pairs(labels, predictions, names)
        page = SECTION.html(found, 0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * 2**20
    assert len(page) < 10_000 and "<img" not in page
    text = text_of(page)
    assert f"{(labels == predictions).sum()} of {classes * each} correct" in text
    predicted = len(set(predictions.tolist()))
    assert f"21,000 classes, of which 21,000 occur and {predicted:,} are predicted" in text
    assert page.count("<tr>") == 1 + 30
    assert re.search(r"count\s+synset 77\s+synset 99\s+3\s", text)


def test_the_limit_of_a_matrix_is_kept():
    def drawn(classes):
        labels = np.arange(classes)
        names = [str(i) for i in range(classes)]
        return "<img" in SECTION.html(Confusion(names, labels, labels, np.ones(classes, int)), 0)

    assert drawn(200) and not drawn(201)


def test_health_of_many_images_is_that_of_some_and_their_texts(monkeypatch):
    rng = np.random.default_rng(0)
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, 9, 4)))
    index, texts = np.repeat(np.arange(9), 2)[:9], [f"text {i}" for i in range(9)]
    pairs = Pairs(image, text, texts, index, np.arange(9), 0)
    evaluated = Evaluated("seen", None, None, None, seed=3)
    evaluated.pairs = pairs
    whole = health.SECTION.collect(evaluated)
    assert whole.positives.sum() == 9 and whole.negatives.sum() == 72 and not whole.drawn
    monkeypatch.setattr(health, "IMAGES", 4)
    some, drawn = health.SECTION.collect(evaluated), evaluated.drawn(9, 4)
    assert some.drawn == ", of which 4 of 9 images were drawn at random"
    mine = np.isin(index, drawn)
    cosines = np.sum(image[index] * text, axis=1)[mine]
    assert some.positives.sum() == mine.sum()
    np.testing.assert_allclose(some.metrics["positive_cosine"], cosines.mean())
    assert some.positives.sum() + some.negatives.sum() == 4 * mine.sum()
