"""The report: what it draws from a model with known answers, and that the page holds it all."""

import dataclasses
import html.parser
import io
import json
import re

import jax
import numpy as np
import pytest
from fake_runner import FakeRunner
from PIL import Image

from mmjax.data.source import Source
from mmjax.evals.evaluators import make_evaluators
from mmjax.evals.image_text import Pairs
from mmjax.report import figures, tables
from mmjax.report.gather import ReportData, gather_report
from mmjax.report.page import write_report
from mmjax.report.sections.retrieval import rank_query, retrieval_examples

CAPTIONS = ["a <b>bold</b> cat", "دب قطبي", "狐 & 'fox'", "dog", "owl", "eel", "ant", "bee"]


class Greys(Source):
    """Eight flat gray images; image i has the value 30 i, and one caption."""

    class_names = ["dark", "light"]
    name = "greys"

    def __len__(self):
        return len(CAPTIONS)

    def __getitem__(self, i):
        image = np.full((16, 16, 3), 30 * i, np.uint8)
        return {"image": image, "captions": [CAPTIONS[i]], "label": int(i >= 4)}


def batches(source, spec, size):
    for start in range(0, len(source), size):
        places = range(start, min(start + size, len(source)))
        rows = [source[i] for i in places] + [source[0]] * (size - len(places))
        ids = np.array(list(places) + [-1] * (size - len(places)))
        yield {
            "image": np.stack([r["image"] for r in rows]),
            "label": np.array([r["label"] for r in rows], np.int32),
            "example_id": ids,
        }


class Tokenizer:
    def encode(self, texts, length):
        place = {**{c: i for i, c in enumerate(CAPTIONS)}, "dark": 0, "light": 7}
        text = np.array([[place[t]] * length for t in texts])
        return text, text >= 0


def embed(params, batch):
    """Every image and its caption at the same corner: a perfect model."""
    if "text" in batch:
        return {"text_embed": np.eye(8, dtype=np.float32)[batch["text"][:, 0]]}
    place = batch["image"][:, 0, 0, 0] // 30
    light = (place >= 4).astype(np.float32)
    return {
        "image_embed": np.eye(8, dtype=np.float32)[place],
        "logits": np.stack([1 - light, light], axis=1),
    }


def attention(params, batch):
    return np.full((2, len(batch["image"]), 2, 16, 16), 1 / 16, np.float32)


def runner(**more):
    return FakeRunner(
        embed=embed,
        open_source=lambda config: Greys(),
        batches=batches,
        tokenizer=Tokenizer(),
        text_length=2,
        batch_size=8,
        **more,
    )


def presets(*kinds):
    return {kind: {"kind": kind, "source": {}, "transform": "decode"} for kind in kinds}


def gathered(*kinds, **more):
    evaluators = make_evaluators(presets(*kinds), runner(**more))
    results = {name: dict(e.run(None)) for name, e in evaluators.items()}
    return results, gather_report(runner(**more), None, evaluators, seed=3)


def test_evaluators_and_report_embed_a_split_once():
    """Those of one source, transform and settings, in one round; the numbers are the same."""
    calls = []

    def counted(params, batch):
        calls.append("text" if "text" in batch else "image")
        return embed(params, batch)

    given = presets("retrieval", "embedding_health", "zero_shot", "classification")
    given["retrieval"]["captions_per_image"] = 1
    given["other_transform"] = given["retrieval"] | {"transform": "decode | resize(16)"}
    made = dataclasses.replace(runner(), embed=counted)
    evaluators, variables = make_evaluators(given, made), {}

    def everything():
        calls.clear()
        found = {name: dict(e.run(variables)) for name, e in evaluators.items()}
        return found, gather_report(made, variables, evaluators), sorted(calls)

    *want, alone = everything()
    with made.kept.during(variables):
        *found, together = everything()
    assert alone == ["image"] * 9 + ["text"] * 7
    assert together == ["image"] * 4 + ["text"] * 3
    for a, b in zip(
        *(jax.tree.leaves(dataclasses.asdict(x[1])) for x in (found, want)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert found[0] == want[0]


class Checker(html.parser.HTMLParser):
    """Collects every address that the page would fetch, all text, and unclosed elements."""

    VOID = ("meta", "img", "br", "link", "wbr")

    def __init__(self, page):
        super().__init__()
        self.addresses, self.text, self.open = [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.addresses += [v for k, v in attributes if k in ("src", "href", "srcset", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def write(tmp_path, results, data, rows=(), **more):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    path = tmp_path / "report.html"
    write_report(
        path,
        tmp_path,
        title="a <title>",
        facts={"Parameters": "5 M"},
        results=results,
        data=data,
        config={"model": {"name": "clip </pre>"}},
        **more,
    )
    return path.read_text(encoding="utf-8")


def test_the_page_is_self_contained_well_formed_and_shows_captions_as_they_are(tmp_path):
    results, data = gathered("retrieval", "zero_shot", "embedding_health", attention=attention)
    rows = [{"step": s, "train/loss": 3 / s, "train/logit_scale": 14.0 + s} for s in range(1, 40)]
    page = write(tmp_path, results, data, rows)
    checked = Checker(page)
    assert checked.open == []
    outside = [a for a in checked.addresses if not a.startswith(("data:image/", "#"))]
    assert outside == []
    assert "url(" not in page and "@import" not in page and "<script" not in page
    examples = data.sections["retrieval"]["retrieval"]
    shown = {CAPTIONS[q.index] for q in examples.text_queries}
    for caption in shown:
        assert caption in checked.text  # escaped in the source, whole to the reader
    assert "<b>bold</b>" not in page
    for heading in ("All results", "Training", "Retrieval: retrieval", "Confusion: zero_shot"):
        assert heading in checked.text
    for heading in ("Attention", "Contrastive health", "Run", "clip </pre>"):
        assert heading in checked.text
    assert list(tmp_path.glob("*.partial")) == []


def test_a_model_without_text_has_a_confusion_and_no_retrieval(tmp_path):
    results, data = gathered("classification")
    assert data.sections.keys() == {"confusion"} and data.examples == {"classification": 8}
    assert data.sections["confusion"]["classification"].matrix().tolist() == [[4, 0], [0, 4]]
    text = Checker(write(tmp_path, results, data)).text
    assert "8 of 8 correct" in text
    assert "Retrieval" not in text and "Contrastive" not in text and "Attention" not in text


def test_a_metric_s_controls_are_rows_below_it():
    figures = {"cider": 0.5, "bleu_1": 0.4, "shuffled/cider": 0.1, "shuffled/bleu_1": 0.2}
    found = Checker(tables.results({"drawings": figures, "speed": {"texts": 3.0}}, {}, {})).text
    assert found.index("drawings") < found.index("0.5") < found.index("drawings/shuffled")
    assert found.index("drawings/shuffled") < found.index("0.1") < found.index("speed")
    assert found.count("cider") == 1 and found.count("texts") == 1


def test_so_are_those_of_a_classification():
    row = {"top1": 0.5, "top5": 0.75, "prior/top1": 0.125, "prior/top5": 0.25, "absent": 2.0}
    found = re.sub("<[^>]+>", " ", tables.results({"few": row, "other": {"top1": 1.0}}, {}, {}))
    lines = ["few 50.0 75.0 –", "few/prior 12.5 25.0 –", "other 100.0 – –"]
    assert " ".join(lines) in " ".join(found.split())


def test_captions_stand_beside_their_pictures(tmp_path):
    def write_captions(params, batch):
        return [f"wrote {value}" for value in batch["image"][:, 0, 0, 0]]

    every = runner(write=lambda settings: write_captions)
    preset = {**presets("captioning")["captioning"], "train_source": {}}
    evaluators = make_evaluators({"drawings": preset}, every)
    data = gather_report(every, None, evaluators, seed=3)
    found = data.sections["captions"]["drawings"]
    assert len(found) == len(CAPTIONS)  # fewer than would be drawn
    for example in found:
        value = example.image[0, 0, 0]
        assert example.generated == f"wrote {value}"
        assert example.references == [CAPTIONS[value // 30]]
    checked = Checker(write(tmp_path, {}, data))
    assert checked.open == []
    assert "Captions: drawings" in checked.text and "wrote 210" in checked.text
    assert all(caption in checked.text for caption in CAPTIONS)
    assert len([a for a in checked.addresses if a.startswith("data:image/")]) >= len(CAPTIONS)


def test_an_empty_report_still_is_a_page(tmp_path):
    assert Checker(write(tmp_path, {}, ReportData())).open == []


def test_infinite_losses_do_not_stop_the_report(tmp_path):
    rows = [{"step": s, "train/loss": "NaN" if s == 2 else 1.0 * s} for s in range(1, 6)]
    page = write(tmp_path, {}, ReportData(), rows)
    assert "Terms of the loss" in page and "in 1 of 5 log lines" in Checker(page).text


def test_examples_are_drawn_by_the_seed_and_not_by_the_score():
    source, index = Greys(), np.arange(8)
    good = Pairs(np.eye(8), np.eye(8), CAPTIONS, index, index, 0)
    bad = Pairs(np.eye(8), np.roll(np.eye(8), 3, axis=0), CAPTIONS, index, index, 0)
    asked = [
        [[q.index for q in e.image_queries], [q.index for q in e.text_queries]]
        for e in (retrieval_examples(p, source, seed) for seed in (0, 1) for p in (good, bad))
    ]
    assert asked[0] == asked[1] and asked[2] == asked[3] and asked[0] != asked[2]


def test_a_perfect_and_a_wrong_model_are_marked_so():
    source, index = Greys(), np.arange(8)
    good = retrieval_examples(Pairs(np.eye(8), np.eye(8), CAPTIONS, index, index, 0), source, 0)
    for query in good.image_queries + good.text_queries:
        assert query.rank == 1 and query.answer == query.index
        assert [h.relevant for h in query.hits] == [True] + [False] * 4
        assert query.hits[0].index == query.index
    for i, image in good.images.items():
        assert (image == 30 * i).all()
        assert good.captions[i] == [CAPTIONS[i]]


def test_image_queries_show_each_text_once_and_every_image_of_a_text_is_right():
    texts = ["cat", "dog", "CAT", "eel"]
    pairs = Pairs(np.eye(4), np.eye(4)[[0, 1, 0, 3]], texts, np.arange(4), np.arange(4), 0)
    examples = retrieval_examples(pairs, Greys(), 0)
    for query in examples.image_queries:
        names = [texts[h.index].casefold() for h in query.hits]
        assert len(set(names)) == len(names) == 3
        right = [n for n, h in zip(names, query.hits) if h.relevant]
        assert right == [texts[query.index].casefold()]


def test_rank_query_by_hand():
    query = rank_query(9, np.array([0.1, 0.9, 0.3, 0.5, 0.2, 0.0, 0.4]), np.array([4, 0]))
    assert [h.index for h in query.hits] == [1, 3, 6, 2, 4]
    assert (query.rank, query.answer, query.hits[4].relevant) == (5, 4, True)


def test_smoothing_keeps_a_constant_and_weighs_by_half_lives():
    np.testing.assert_allclose(figures.smooth(np.full(9, 2.5), 3.0), 2.5)
    # After one half-life of silence the earlier value weighs half: (0.5 * 1 + 0) / 1.5.
    np.testing.assert_allclose(figures.smooth(np.array([1.0, 0.0]), 1.0), [1.0, 1 / 3])


def test_pictures_are_encoded_small_enough_and_without_loss_where_drawn():
    drawing = np.zeros((300, 150, 3), np.uint8)
    drawing[:150] = (10, 200, 30)
    kind, data = figures.encode_image(drawing)
    opened = Image.open(io.BytesIO(data))
    assert (kind, opened.size) == ("image/png", (96, 192))
    small = drawing[140:160, :20]
    opened = np.asarray(Image.open(io.BytesIO(figures.encode_image(small)[1])))
    np.testing.assert_array_equal(opened, small)
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    assert figures.encode_image(noise)[0] == "image/jpeg"


def test_the_overlay_is_bright_where_the_attention_is():
    weights = np.zeros((4, 4))
    weights[3, 0] = 1.0
    overlay = figures.attention_overlay(np.full((16, 16, 3), 120, np.uint8), weights, 64)
    assert overlay.shape == (64, 64, 3)
    brightness = overlay.astype(float).sum(-1)
    row, column = np.unravel_index(brightness.argmax(), brightness.shape)
    assert row >= 48 and column < 16


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("text_to_image/recall@1", 0.1234, "12.3"),
        ("image_to_text/median_rank", 7.5, "7.5"),
        ("top5", 1.0, "100.0"),
        ("modality_gap", 0.12345, "0.123"),
        ("map", None, "–"),
        ("map", float("nan"), "–"),
    ],
)
def test_figures_as_text(metric, value, text):
    assert tables.number(metric, value) == text


def test_baselines_stand_under_the_run_and_the_best_figure_is_marked():
    table = tables.results(
        {"unseen": {"text_to_image/recall@1": 0.25, "text_to_image/median_rank": 9.0}},
        {"chance": {"unseen": {"text_to_image/recall@1": 0.01, "text_to_image/median_rank": 4.0}}},
        {"unseen": "0123456789ab"},
    )
    text = Checker(table).text
    assert "chance" in text and "0123456789ab" in text
    best = re.findall(r'class="[^"]*best[^"]*">([^<]*)<', table)
    assert best == ["25.0", "4"]  # the higher recall, and the lower median rank


def test_what_training_has_changed_stands_under_the_run_with_its_sign():
    unseen = {"text_to_image/recall@1": 0.25, "text_to_image/median_rank": 9.0}
    before = {"text_to_image/recall@1": 0.305, "text_to_image/median_rank": 9.0}
    table = tables.results(
        {"unseen": unseen, "drawings": {"cider": 0.5}},
        {"chance": {"unseen": {"text_to_image/recall@1": 0.01}}},
        {},
        before={"unseen": before, "drawings": {"cider": 0.25}, "gone": {"cider": 1.0}},
    )
    rows = [re.sub("<[^>]*>", " ", row).split() for row in table.split("</tr>")]
    found = {" ".join(r[:-12]): r[-12:] for r in rows if len(r) > 12 and r[-1] == "–"}
    assert [*found] == ["unseen this run", "before training", "change", "chance"]
    assert found["unseen this run"][0] == "25.0" and found["before training"][0] == "30.5"
    assert found["change"][0] == "−5.5" and found["change"][5] == "+0"
    assert found["change"][1] == "–"  # what neither has
    best = re.findall(r'class="[^"]*best[^"]*">([^<]*)<', table)
    assert best == ["9", "30.5", "9", "0.5"]  # a change is never the best
    assert ["change", "+0.25"] in rows
