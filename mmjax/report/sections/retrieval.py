"""Retrieval: randomly drawn queries of both directions with their top results."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.data.transforms.decode import decode_image
from mmjax.data.transforms.video_clips import open_clip
from mmjax.evals.image_text import Pairs
from mmjax.evals.retrieval import caption_ids, relevant_images
from mmjax.report.evaluated import Evaluated
from mmjax.report.markup import image_tag, text
from mmjax.report.sections.section import Section

IMAGE_QUERIES = 6
TEXT_QUERIES = 6
TOP = 5


@dataclasses.dataclass(frozen=True)
class Hit:
    """One retrieved item."""

    index: int
    score: float
    relevant: bool


@dataclasses.dataclass(frozen=True)
class Query:
    """A query, the rank and index of its best relevant item (ranks from 1), and its top hits."""

    index: int
    rank: int
    answer: int
    hits: list[Hit]


@dataclasses.dataclass(frozen=True)
class RetrievalExamples:
    """Queries of both directions; `images` has every image that is shown."""

    image_queries: list[Query]
    text_queries: list[Query]
    images: dict[int, np.ndarray]  # index -> uint8 [H, W, 3]
    texts: list[str]
    captions: dict[int, list[str]]  # image index -> all of its captions
    gallery_images: int


def image_of(example: Mapping[str, Any]) -> np.ndarray:
    """The example's image, decoded, or the middle frame of its video: uint8 `[H, W, 3]`."""
    if "image" not in example:
        clip = open_clip(example["video"])
        return clip.frames([len(clip.times) // 2])[0]
    image = example["image"]
    return decode_image(image) if isinstance(image, bytes) else np.asarray(image)


def rank_query(index: int, scores: np.ndarray, relevant: np.ndarray) -> Query:
    """A query's top hits by scores `[G]`, and its best relevant item."""
    order = np.argsort(-scores, kind="stable")
    mine = set(relevant.tolist())
    hits = [Hit(int(i), float(scores[i]), int(i) in mine) for i in order[:TOP]]
    place = next(place for place, i in enumerate(order) if int(i) in mine)
    return Query(index, 1 + place, int(order[place]), hits)


def retrieval_examples(pairs: Pairs, source: Any, seed: int) -> RetrievalExamples:
    """Randomly drawn queries of both directions with their top hits."""
    rng = np.random.default_rng(seed)
    images, texts = len(pairs.image_embed), len(pairs.texts)
    asked_images = rng.choice(images, min(IMAGE_QUERIES, images), replace=False)
    asked_texts = rng.choice(texts, min(TEXT_QUERIES, texts), replace=False)
    ids = caption_ids(pairs.texts)
    relevant = relevant_images(pairs.text_image_index, ids)
    # One entry per text, so that the top hits are different captions.
    _, distinct = np.unique(ids, return_index=True)
    image_queries = []
    for i in asked_images:
        mine = np.asarray([n for n, m in enumerate(distinct) if i in relevant[m]])
        query = rank_query(int(i), pairs.text_embed[distinct] @ pairs.image_embed[i], mine)
        hits = [dataclasses.replace(h, index=int(distinct[h.index])) for h in query.hits]
        answer = int(distinct[query.answer])
        image_queries.append(dataclasses.replace(query, hits=hits, answer=answer))
    text_queries = [
        rank_query(int(m), pairs.image_embed @ pairs.text_embed[m], relevant[m])
        for m in asked_texts
    ]
    shown = {q.index for q in image_queries} | {h.index for q in text_queries for h in q.hits}
    shown |= {q.answer for q in text_queries}
    captions: dict[int, list[str]] = {i: [] for i in shown}
    for caption, image in zip(pairs.texts, pairs.text_image_index):
        if int(image) in captions:
            captions[int(image)].append(caption)
    return RetrievalExamples(
        image_queries=image_queries,
        text_queries=text_queries,
        images={i: image_of(source[i]) for i in sorted(shown)},
        texts=pairs.texts,
        captions=captions,
        gallery_images=images,
    )


def _collect(evaluated: Evaluated) -> RetrievalExamples | None:
    if evaluated.pairs is None:
        return None
    return retrieval_examples(evaluated.pairs, evaluated.pair_source, evaluated.seed)


def _html(examples: RetrievalExamples, seed: int) -> str:
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


SECTION = Section("Retrieval", _collect, _html)
