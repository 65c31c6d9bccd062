"""Contrastive health: similarities of matching and other pairs, and the gap between modalities."""

import dataclasses
import html
import itertools

import numpy as np

from mmjax.evals.embedding_health import health_metrics, principal_plane, similarity_histograms
from mmjax.evals.retrieval import caption_ids, relevant_images
from mmjax.report import figures
from mmjax.report.evaluated import Evaluated
from mmjax.report.markup import card_grid, facts, inline_svg
from mmjax.report.sections.section import Section

POINTS = 1500  # of each modality in the scatter
IMAGES = 5000  # drawn, with their texts: the time grows with the square of their number


@dataclasses.dataclass(frozen=True)
class Health:
    """Histograms of similarities of matching and other pairs, and a 2D projection of both."""

    source: str
    drawn: str  # of which images; "" if all
    edges: np.ndarray  # [bins + 1]
    positives: np.ndarray  # [bins]
    negatives: np.ndarray  # [bins]
    metrics: dict[str, float]
    image_points: np.ndarray  # [n, 2]
    text_points: np.ndarray  # [m, 2]


def _collect(evaluated: Evaluated) -> Health | None:
    pairs = evaluated.pairs
    if pairs is None:
        return None
    total = len(pairs.image_embed)
    drawn = evaluated.drawn(total, IMAGES)
    image, mine = pairs.image_embed[drawn], np.isin(pairs.text_image_index, drawn)
    text, index = pairs.text_embed[mine], np.searchsorted(drawn, pairs.text_image_index[mine])
    relevant = relevant_images(index, caption_ids(list(itertools.compress(pairs.texts, mine))))
    histograms = similarity_histograms(image, text, relevant)
    rng = np.random.default_rng(evaluated.seed)
    some = [rng.permutation(len(x))[:POINTS] for x in (image, text)]
    points = principal_plane(image[some[0]], text[some[1]])
    some = f", of which {len(drawn):,} of {total:,} images were drawn at random"
    metrics = health_metrics(image, text, index)
    return Health(evaluated.name, some * (len(drawn) < total), *histograms, metrics, *points)


def _html(health: Health, seed: int) -> str:
    m = health.metrics
    similarities = figures.similarities(health.edges, health.positives, health.negatives)
    plane = figures.modality_plane(health.image_points, health.text_points)
    means = f"mean {m['positive_cosine']:.2f} matching, {m['negative_cosine']:.2f} other"
    gap = f"centroids {m['modality_gap']:.2f} apart"
    cards = [
        ("Similarities", inline_svg(similarities, f"histograms of similarities, {means}"), means),
        ("Modality gap", inline_svg(plane, f"both modalities on a plane, {gap}"), gap),
    ]
    tiles = facts(
        {
            "Modality gap (at most 2)": f"{m['modality_gap']:.3f}",
            "Alignment (0 is best)": f"{m['alignment']:.3f}",
            "Uniformity of images (−4 is uniform)": f"{m['uniformity_image']:.2f}",
            "Uniformity of texts": f"{m['uniformity_text']:.2f}",
        }
    )
    note = f'<p class="note">Measured on {html.escape(health.source)}{health.drawn}.</p>'
    return note + tiles + card_grid(cards)


SECTION = Section("Contrastive health", _collect, _html, once=True)
