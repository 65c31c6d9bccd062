"""The report's data as plain arrays, collected from a model through its evaluators.

Queries and images are drawn by a seeded generator before any score is known, so that the
examples are a random sample and not cherry-picked.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.data.sources.subset import Subset
from mmjax.data.transforms.decode import decode_image
from mmjax.evals.attention_rollout import attention_maps
from mmjax.evals.captioning import Captioning
from mmjax.evals.embedding_health import health_metrics, principal_plane, similarity_histograms
from mmjax.evals.evaluators import Classification, Evaluator, ZeroShot
from mmjax.evals.image_text import IMAGE_TEXT, Pairs, Retrieval
from mmjax.evals.retrieval import caption_ids, relevant_images
from mmjax.evals.zero_shot import confusion_matrix
from mmjax.report.grounding import Grounding, grounding_of
from mmjax.report.sounds import Sound, sounds_of
from mmjax.report.videos import video_section
from mmjax.run.evaluation import Runner
from mmjax.system import Variables

IMAGE_QUERIES = 6
TEXT_QUERIES = 6
TOP = 5
ATTENTION_IMAGES = 8
CAPTIONED_IMAGES = 24
POINTS = 1500  # of each modality in the scatter


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


@dataclasses.dataclass(frozen=True)
class CaptionExample:
    """An image with its generated caption and its references."""

    image: np.ndarray  # uint8 [H, W, 3]
    generated: str
    references: list[str]
    nearest: str  # caption of the nearest training image, or ""


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Counts `[C, C]`: row = label, column = prediction."""

    class_names: list[str]
    matrix: np.ndarray


@dataclasses.dataclass(frozen=True)
class Health:
    """Histograms of similarities of matching and other pairs, and a 2D projection of both."""

    source: str
    edges: np.ndarray  # [bins + 1]
    positives: np.ndarray  # [bins]
    negatives: np.ndarray  # [bins]
    metrics: dict[str, float]
    image_points: np.ndarray  # [n, 2]
    text_points: np.ndarray  # [m, 2]


@dataclasses.dataclass(frozen=True)
class Attention:
    """Images after the transform, and the fraction of attention on each patch."""

    images: np.ndarray  # uint8 [n, H, W, 3]
    maps: np.ndarray  # [n, rows, columns], each sums to 1


@dataclasses.dataclass(frozen=True)
class ReportData:
    """All model outputs that the report shows; empty where the model has none."""

    retrieval: dict[str, RetrievalExamples] = dataclasses.field(default_factory=dict)
    confusion: dict[str, Confusion] = dataclasses.field(default_factory=dict)
    captions: dict[str, list[CaptionExample]] = dataclasses.field(default_factory=dict)
    health: Health | None = None
    attention: Attention | None = None
    grounding: list[Grounding] = dataclasses.field(default_factory=list)
    sounds: list[Sound] = dataclasses.field(default_factory=list)
    seed: int = 0
    videos: str = ""  # HTML


def image_of(example: Mapping[str, Any]) -> np.ndarray:
    """The example's image, decoded: uint8 `[H, W, 3]`."""
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
    for text, image in zip(pairs.texts, pairs.text_image_index):
        if int(image) in captions:
            captions[int(image)].append(text)
    return RetrievalExamples(
        image_queries=image_queries,
        text_queries=text_queries,
        images={i: image_of(source[i]) for i in sorted(shown)},
        texts=pairs.texts,
        captions=captions,
        gallery_images=images,
    )


def caption_examples(
    evaluator: Captioning, variables: Variables, seed: int
) -> list[CaptionExample]:
    """Randomly drawn images with their generated captions."""
    source = evaluator.runner.open_source(evaluator.source)
    count = min(CAPTIONED_IMAGES, len(source))
    drawn = np.sort(np.random.default_rng(seed).choice(len(source), count, replace=False))
    found = evaluator.captions(variables, drawn)
    nearest = found.nearest or [""] * len(found.texts)
    return [
        CaptionExample(image_of(source[int(i)]), *texts)
        for i, *texts in zip(found.places, found.texts, found.references, nearest)
    ]


def health_of(name: str, pairs: Pairs, seed: int) -> Health:
    """Histograms, metrics and the 2D projection of both modalities."""
    image, text, index = pairs.image_embed, pairs.text_embed, pairs.text_image_index
    relevant = relevant_images(index, caption_ids(pairs.texts))
    edges, positives, negatives = similarity_histograms(image, text, relevant)
    rng = np.random.default_rng(seed)
    some = [rng.permutation(len(x))[:POINTS] for x in (image, text)]
    image_points, text_points = principal_plane(image[some[0]], text[some[1]])
    metrics = health_metrics(image, text, index)
    return Health(name, edges, positives, negatives, metrics, image_points, text_points)


def attention_of(
    runner: Runner, variables: Variables, source: Any, spec: str, seed: int
) -> Attention | None:
    """Attention of a few randomly drawn images; None for a model without attention weights."""
    count = min(ATTENTION_IMAGES, len(source))
    drawn = np.sort(np.random.default_rng(seed).choice(len(source), count, replace=False))
    batch = next(iter(runner.batches(Subset(source, drawn), spec, runner.batch_size)))
    if "image" not in batch:
        return None
    weights = runner.attention(variables, {"image": batch["image"]})
    if weights is None:
        return None
    images = runner.gather({"image": batch["image"]})["image"][:count]
    return Attention(images, attention_maps(weights[:, :count], *images.shape[1:3]))


def gather_report(
    runner: Runner, variables: Variables, evaluators: Mapping[str, Evaluator], *, seed: int = 0
) -> ReportData:
    """Retrieval and caption examples, confusion matrices, embedding health, attention, grounding,
    sounds, videos.

    Args:
      evaluators: from `make_evaluators`; health, attention, grounding and sounds are those of the
        first suitable one.
      seed: of the random choice of examples.
    """
    retrieval: dict[str, RetrievalExamples] = {}
    confusion: dict[str, Confusion] = {}
    captions: dict[str, list[CaptionExample]] = {}
    health = attention = None
    grounding: list[Grounding] = []
    sounds: list[Sound] = []
    videos = ""
    for name, evaluator in evaluators.items():
        if isinstance(evaluator, Retrieval):
            if evaluator.pair != IMAGE_TEXT:
                continue  # examples are shown of images and captions alone
            pairs = evaluator.pairs(variables)
            source = Subset(runner.open_source(evaluator.source), pairs.places)
            retrieval[name] = retrieval_examples(pairs, source, seed)
            health = health or health_of(name, pairs, seed)
            if not grounding:
                spec = evaluator.transform
                grounding = grounding_of(runner, variables, pairs, source, spec, seed)
        elif isinstance(evaluator, ZeroShot | Classification):
            scores, labels, names = evaluator.scores(variables)
            matrix = confusion_matrix(labels, scores.argmax(axis=1), len(names))
            confusion[name] = Confusion(names, matrix)
            if not sounds:
                source = runner.open_source(evaluator.source)
                sounds = sounds_of(source, scores, labels, names, seed)
        elif isinstance(evaluator, Captioning):
            captions[name] = caption_examples(evaluator, variables, seed)
        if not videos:
            videos = video_section(runner.open_source(evaluator.source), seed)
        if attention is None:
            source = runner.open_source(evaluator.source)
            attention = attention_of(runner, variables, source, evaluator.transform, seed)
    shown = retrieval, confusion, captions, health, attention, grounding, sounds
    return ReportData(*shown, seed, videos)
