"""The report: a self-contained HTML file with embedded images and no network requests."""

import base64
import html
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.report import figures, sounds, tables
from mmjax.report.gather import (
    Attention,
    CaptionExample,
    Health,
    Query,
    ReportData,
    RetrievalExamples,
)
from mmjax.report.grounding import Grounding
from mmjax.report.sounds import Sound
from mmjax.report.style import STYLE
from mmjax.workdir import whole_file
from mmjax.workdir.metrics import read_metrics


def write_report(
    path: Path,
    workdir: str | os.PathLike,
    *,
    title: str,
    facts: Mapping[str, str],
    results: Mapping[str, Mapping[str, float]],
    data: ReportData,
    config: Mapping[str, Any],
    baselines: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    fingerprints: Mapping[str, str] | None = None,
    before: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Write the report of a run, with training curves from `<workdir>/metrics.jsonl`.

    Args:
      path: the file, in a folder that is made if missing.
      title: the run's name.
      facts: shown under the title, in order, such as {"Parameters": "5.4 M"}.
      results: evaluator -> metric -> value, the run's final metrics.
      data: from `gather_report`.
      config: the resolved config, shown in full at the end.
      baselines: name of a baseline -> evaluator -> metric -> value.
      fingerprints: evaluator -> hash of its config.
      before: as results, before training.
    """
    rows = read_metrics(workdir)
    result_tables = tables.results(results, baselines or {}, fingerprints or {}, before)
    sections = [
        ("results", "Results", result_tables),
        ("training", "Training", _training(rows)),
        *(
            (f"retrieval-{i}", f"Retrieval: {name}", _retrieval(examples, data.seed))
            for i, (name, examples) in enumerate(data.retrieval.items())
        ),
        *(
            (f"confusion-{i}", f"Confusion: {name}", tables.confusion(confusion, inline_svg))
            for i, (name, confusion) in enumerate(data.confusion.items())
        ),
        *(
            (f"captions-{i}", f"Captions: {name}", _captions(examples, data.seed))
            for i, (name, examples) in enumerate(data.captions.items())
        ),
        ("attention", "Attention", _attention(data.attention, data.seed)),
        ("grounding", "Grounding", _grounding(data.grounding, data.seed)),
        ("sounds", "Sounds", _sounds(data.sounds, data.seed)),
        ("videos", "Videos", data.videos),
        ("health", "Contrastive health", _health(data.health, rows)),
        ("config", "Config", _config(config)),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_page(path, title, facts, [section for section in sections if section[2]])


def write_page(
    path: Path,
    title: str,
    about: Mapping[str, str],
    sections: Iterable[tuple[str, str, str]],
) -> None:
    """Write a page: its title, facts about it, and sections of (key, name, HTML)."""
    sections = list(sections)
    menu = "".join(f'<a href="#{key}">{html.escape(name)}</a>' for key, name, _ in sections)
    body = "".join(
        f'<section id="{key}"><h2>{html.escape(name)}</h2>{content}</section>'
        for key, name, content in sections
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<header><h1>{html.escape(title)}</h1>{facts(about)}</header>"
        f"<nav>{menu}</nav><main>{body}</main></body></html>\n"
    )
    whole_file.write(path, page)


# ---- pieces of HTML


def _data_url(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def inline_svg(data: bytes, about: str) -> str:
    """A figure as an image element; `about` is its alt text."""
    return (
        f'<img class="figure" alt="{html.escape(about)}" src="{_data_url("image/svg+xml", data)}">'
    )


def image_tag(image: np.ndarray, about: str, kind: str = "") -> str:
    """An image uint8 `[H, W, 3]` as an image element."""
    url = _data_url(*figures.encode_image(image))
    return f'<img class="image {kind}" alt="{html.escape(about)}" src="{url}">'


def text(text: str) -> str:
    """A caption."""
    # Captions may be in any script: the browser detects the text direction.
    return f'<bdi dir="auto">{html.escape(text)}</bdi>'


def card_grid(cards: Iterable[tuple[str, str, str]]) -> str:
    """Cards of (title, content, note)."""
    made = [
        f"<figure><figcaption><b>{html.escape(title)}</b>"
        f"{f'<span>{html.escape(note)}</span>' if note else ''}</figcaption>{content}</figure>"
        for title, content, note in cards
    ]
    return f'<div class="cards">{"".join(made)}</div>' if made else ""


def facts(about: Mapping[str, str]) -> str:
    """Names and values, side by side."""
    pairs = "".join(
        f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd></div>"
        for k, v in about.items()
    )
    return f"<dl>{pairs}</dl>"


# ---- sections


def _series(
    rows: list[dict[str, float]], names: Mapping[str, str]
) -> dict[str, tuple[list[float], list[float]]]:
    """label -> (steps, values) of the metrics (metric -> label) with at least two points."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for name, label in names.items():
        points = [(r["step"], r[name]) for r in rows if name in r and np.isfinite(r[name])]
        steps, values = [s for s, _ in points], [v for _, v in points]
        # A total with a single term equals that term: only one curve is drawn.
        if len(points) > 1 and (steps, values) not in found.values():
            found[label] = (steps, values)
    return found


def _training(rows: list[dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    recalls = [n for n in names if n.startswith("eval/") and n.endswith("text_to_image/recall@1")]
    if not recalls:
        recalls = [n for n in names if n.startswith("eval/") and n.endswith("/top1")]
    rates = [n for n in names if n.startswith("learning_rate") or n.endswith("/learning_rate")]
    losses = [n for n in names if n.startswith("train/") and n.endswith("loss")]
    held_out = [n for n in names if n.startswith("eval/") and "loss" in n.removeprefix("eval/")]
    accuracies = [n for n in names if n.startswith("train/") and n.endswith(("accuracy", "top1"))]
    cards = []
    for title, note, labels, settings in (
        (
            "Training loss",
            "bold: running mean",
            {n: n[6:] for n in losses},
            {"smoothed": True, "unit": "loss"},
        ),
        (
            "Held-out loss",
            "no dropout, no augmentation",
            {n: n.removeprefix("eval/") for n in held_out},
            {"unit": "loss"},
        ),
        (
            "Accuracy in the batch",
            "",
            {n: n[6:] for n in accuracies},
            {"smoothed": True, "percent": True},
        ),
        (
            "Evaluation",
            "text → image, Recall@1" if any("recall" in n for n in recalls) else "top-1",
            {n: n.split("/")[1] for n in recalls},
            {"percent": True},
        ),
        ("Learning rate", "", {n: n for n in rates}, {}),
        (
            "Gradient norm",
            "",
            {"train/grad_norm": "gradient norm"},
            {"smoothed": True, "log": True, "unit": "L2 norm of all gradients"},
        ),
        (
            "Throughput",
            "examples per second",
            {"examples_per_second": "examples/s"},
            {"zero": True, "unit": "examples/s"},
        ),
    ):
        series = _series(rows, labels)
        if series:
            cards.append((title, inline_svg(figures.lines(series, **settings), title), note))
    return card_grid(cards)


def _retrieval(examples: RetrievalExamples, seed: int) -> str:
    images, texts = len(examples.image_queries), len(examples.text_queries)
    queries = "".join(_image_query(q, examples) for q in examples.image_queries)
    captions = "".join(_text_query(q, examples) for q in examples.text_queries)
    return (
        f'<p class="note">{images} images and {texts} captions, drawn at random (seed {seed}) '
        f"before any score was known, from a gallery of {examples.gallery_images} images. "
        '<span class="right">✓</span> marks correct results; the rank is that of the best correct '
        "one. Captions with the same text are shown once.</p>"
        "<h3>Image to text</h3>"
        f'<div class="queries">{queries}</div>'
        "<h3>Text to image</h3>"
        f'<div class="rows">{captions}</div>'
    )


def _rank(query: Query) -> str:
    kind = "good" if query.rank == 1 else "fair" if query.rank <= len(query.hits) else "poor"
    return f'<span class="rank {kind}">rank {query.rank}</span>'


def _image_query(query: Query, examples: RetrievalExamples) -> str:
    top = max(hit.score for hit in query.hits)
    low = min(0.0, min(hit.score for hit in query.hits))
    items = "".join(
        f'<li class="{"hit" if hit.relevant else ""}">'
        f'<i style="width:{100 * (hit.score - low) / max(top - low, 1e-9):.0f}%"></i>'
        f"<span>{text(examples.texts[hit.index])}</span><em>{hit.score:.2f}</em></li>"
        for hit in query.hits
    )
    own = " · ".join(text(t) for t in examples.captions[query.index][:3])
    return (
        f'<article><div class="asked">{image_tag(examples.images[query.index], "query image")}'
        f'{_rank(query)}</div><div class="answers"><ol>{items}</ol>'
        f'<p class="own">its captions: {own}</p></div></article>'
    )


def _text_query(query: Query, examples: RetrievalExamples) -> str:
    images = "".join(
        f'<div class="{"hit" if hit.relevant else ""}">'
        f"{image_tag(examples.images[hit.index], f'result {place}')}<em>{hit.score:.2f}</em></div>"
        for place, hit in enumerate(query.hits, start=1)
    )
    if query.rank > len(query.hits):
        right = image_tag(examples.images[query.answer], "the correct image")
        images += f'<div class="missed">{right}<em>correct</em></div>'
    return (
        f'<article><div class="asked"><q>{text(examples.texts[query.index])}</q>{_rank(query)}'
        f'</div><div class="answers">{images}</div></article>'
    )


def _captions(examples: Sequence[CaptionExample], seed: int) -> str:
    tiles = "".join(
        f"<article>{image_tag(e.image, e.generated)}<p><b>{text(e.generated)}</b></p>"
        f"<p>{' · '.join(text(t) for t in e.references[:3])}</p>"
        + (f'<p class="own">{text(e.nearest)}</p>' if e.nearest else "")
        + "</article>"
        for e in examples
    )
    last = ", then the caption of the nearest training image" * any(e.nearest for e in examples)
    return (
        f'<p class="note">{len(examples)} images drawn at random (seed {seed}). In bold the '
        f"generated caption, below it the human captions{last}.</p>"
        f'<div class="examples wide">{tiles}</div>'
    )


def _attention(attention: Attention | None, seed: int) -> str:
    if attention is None:
        return ""
    pairs = "".join(
        f'<div class="pair">{image_tag(image, "image")}'
        f"{image_tag(figures.attention_overlay(image, weights), 'its attention')}</div>"
        for image, weights in zip(attention.images, attention.maps)
    )
    return (
        '<p class="note">Attention rollout of the image tower over all layers and heads (Abnar '
        f"&amp; Zuidema 2020); bright is high. Images drawn at random (seed {seed}).</p>"
        f'<div class="pairs">{pairs}</div>'
    )


def _grounding(found: Sequence[Grounding], seed: int) -> str:
    rows = "".join(
        f"<h3>{text(pair.caption)} <small>matches: {pair.probability:.0%}</small></h3>"
        f'<div class="examples"><article>{image_tag(pair.image, pair.caption)}</article>'
        + "".join(
            f"<article>{image_tag(figures.attention_overlay(pair.image, weights), word)}"
            f"<p>{text(word)}</p></article>"
            for word, weights in zip(pair.words, pair.maps)
        )
        + "</div>"
        for pair in found
    )
    note = (
        '<p class="note">Grad-CAM of the cross-attention in the middle of the fusion encoder, for '
        "each token of the caption: attention times the gradient of the logit that image and "
        "caption match, where it is positive (Li et al. 2021); bright is high, each map on its own "
        f"scale. Images drawn at random (seed {seed}).</p>"
    )
    return note + rows if found else ""


def _sounds(found: Sequence[Sound], seed: int) -> str:
    tiles = "".join(
        f"<article>{image_tag(sounds.spectrogram_image(s.waveform), s.name, 'spectrogram')}"
        f"{sounds.described(s)}{sounds.player(s.waveform)}</article>"
        for s in found
    )
    note = (
        f'<p class="note">The first {sounds.SECONDS} seconds of sounds drawn at random (seed '
        f"{seed}), with their mel spectrograms: {sounds.TOP_DB:.0f} decibels, from 0 to "
        f"{sounds.RATE // 2000} kHz.</p>"
    )
    return f'{note}<div class="examples wide">{tiles}</div>' if found else ""


def _health(health: Health | None, rows: list[dict[str, float]]) -> str:
    cards = []
    scale = _series(rows, {"train/logit_scale": "logit scale"})
    if scale:
        steps, values = scale["logit scale"]
        note = f"1 / τ, from {values[0]:.1f} to {values[-1]:.1f}"
        # CLIP's cap on the scale is shown only if the run comes near it.
        cap = (100.0, "cap") if max(values) > 70 else None
        drawn = figures.lines(scale, reference=cap)
        cards.append(("Temperature", inline_svg(drawn, f"logit scale over steps, {note}"), note))
    tiles = ""
    if health is not None:
        m = health.metrics
        cards.append(
            (
                "Similarities",
                inline_svg(figures.similarities(health), "histograms of similarities"),
                f"mean {m['positive_cosine']:.2f} matching, {m['negative_cosine']:.2f} other",
            )
        )
        cards.append(
            (
                "Modality gap",
                inline_svg(figures.modality_plane(health), "both modalities on a plane"),
                f"centroids {m['modality_gap']:.2f} apart",
            )
        )
        tiles = facts(
            {
                "Modality gap (at most 2)": f"{m['modality_gap']:.3f}",
                "Alignment (0 is best)": f"{m['alignment']:.3f}",
                "Uniformity of images (−4 is uniform)": f"{m['uniformity_image']:.2f}",
                "Uniformity of texts": f"{m['uniformity_text']:.2f}",
            }
        )
        tiles = f'<p class="note">Measured on {html.escape(health.source)}.</p>{tiles}'
    return tiles + card_grid(cards)


def _config(config: Mapping[str, Any]) -> str:
    text = json.dumps(config, indent=2, ensure_ascii=False, default=str)
    shown = html.escape(text)
    return f"<details><summary>Show the resolved config</summary><pre>{shown}</pre></details>"
