"""Image-text retrieval on the full gallery, in both directions; other pairs by the same rules.

Rules, because retrieval metrics depend on them:
- A caption is relevant to its own image. If captions of several images are the same text
  (`text_ids`), each of those images is relevant to that text, and vice versa.
- Ties are broken against the model: an irrelevant item with the same score as a relevant one
  ranks before it, so a model with constant embeddings retrieves nothing.
- The rank of a query is that of its best relevant item.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

RECALL_AT = (1, 5, 10)
# Scores of unit vectors that differ by less than this are float32 noise, hence ties.
TIE = 1e-6


def caption_ids(texts: Sequence[str]) -> np.ndarray:
    """`[M]` int64: equal for captions with the same text up to case and white space."""
    known: dict[str, int] = {}
    return np.asarray(
        [known.setdefault(" ".join(t.casefold().split()), len(known)) for t in texts], np.int64
    )


def relevant_images(text_image_index: np.ndarray, text_ids: np.ndarray) -> list[np.ndarray]:
    """For each of M captions, the sorted indices of the images that have the same text."""
    order = np.argsort(text_ids, kind="stable")
    _, starts = np.unique(text_ids[order], return_index=True)
    result: list[np.ndarray] = [np.empty(0, np.int64)] * len(text_ids)
    for same_text in np.split(order, starts[1:]):
        images = np.unique(text_image_index[same_text])
        for text in same_text:
            result[text] = images
    return result


def _invert(relevant: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
    """Turn 'items relevant to each query' into 'queries relevant to each item'."""
    result: list[list[int]] = [[] for _ in range(size)]
    for query, items in enumerate(relevant):
        for item in items:
            result[item].append(query)
    return [np.asarray(queries, np.int64) for queries in result]


def relevance(
    images: int, text_image_index: np.ndarray, text_ids: np.ndarray | None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(texts relevant to each of N images, images relevant to each of M texts).

    Raises:
      ValueError: an image without a caption.
    """
    own = np.arange(len(text_image_index))
    relevant = relevant_images(text_image_index, own if text_ids is None else text_ids)
    captions = _invert(relevant, images)
    bare = [i for i, texts in enumerate(captions) if len(texts) == 0]
    if bare:
        raise ValueError(
            f"{len(bare)} images have no caption (the first is image {bare[0]}): leave them out of "
            "the retrieval gallery or give each a caption."
        )
    return captions, relevant


def score_chunks(
    queries: np.ndarray, gallery: np.ndarray, chunk_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first query, scores `[c, G]`) in chunks, to limit memory to chunk_size x G."""
    gallery = np.asarray(gallery, np.float32)
    for start in range(0, len(queries), chunk_size):
        yield start, np.asarray(queries[start : start + chunk_size], np.float32) @ gallery.T


def nearest(
    queries: np.ndarray, gallery: np.ndarray, count: int, chunk_size: int = 1024
) -> np.ndarray:
    """`[Q, k]`: the items of the gallery with the largest scores, k = count or all of them."""
    count = min(count, len(gallery))
    chunks = score_chunks(queries, gallery, chunk_size)
    return np.concatenate(
        [np.argsort(-scores, axis=1, kind="stable")[:, :count] for _, scores in chunks]
    )


def _ahead(scores: np.ndarray, items: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Scores `[G]` with new ones of some items, which come before all others, in float64."""
    scores = scores - scores.max() + new.min() - 1.0
    scores[items] = new
    return scores


def ranks_and_precisions(
    queries: np.ndarray,
    gallery: np.ndarray,
    relevant: Sequence[np.ndarray],
    chunk_size: int = 1024,
    first: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rank of the best relevant item (from 1) and average precision, `[Q]` each.

    Args:
      queries: `[Q, D]`; gallery: `[G, D]`; relevant: for each query the gallery's indices.
      first: items `[Q, k]` that come before all others, and their scores `[Q, k]` in float64.
    """
    ranks = np.empty(len(queries), np.int64)
    precisions = np.empty(len(queries), np.float64)
    for start, scores in score_chunks(queries, gallery, chunk_size):
        for row, scored in enumerate(scores):
            items = relevant[start + row]
            if first is not None:
                scored = _ahead(scored, *(x[start + row] for x in first))
            mine = -np.sort(-scored[items])  # best first
            ordered = np.sort(scored)
            # Irrelevant items that reach a relevant item's score rank before it: the
            # pessimistic order of ties.
            reach = len(scored) - np.searchsorted(ordered, mine - TIE)
            mine_reach = len(mine) - np.searchsorted(mine[::-1], mine - TIE)
            before = reach - mine_reach
            found = np.arange(1, len(mine) + 1)
            ranks[start + row] = 1 + before[0]
            precisions[start + row] = np.mean(found / (found + before))
    return ranks, precisions


def summarize_ranks(ranks: np.ndarray, precisions: np.ndarray) -> dict[str, float]:
    """Recall@k, median rank, mean reciprocal rank and mean average precision (fractions of 1)."""
    return {
        **{f"recall@{k}": float(np.mean(ranks <= k)) for k in RECALL_AT},
        "median_rank": float(np.median(ranks)),
        "mrr": float(np.mean(1.0 / ranks)),
        "map": float(np.mean(precisions)),
    }


def retrieval_metrics(
    image_embed: np.ndarray,
    text_embed: np.ndarray,
    text_image_index: np.ndarray,
    *,
    text_ids: np.ndarray | None = None,
    chunk_size: int = 1024,
    first: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    pair: Sequence[str] = ("image", "text"),
) -> dict[str, float]:
    """Recall@1/5/10, median rank, MRR and mAP of both directions on the full gallery.

    Args:
      image_embed: `[N, D]` of unit length; text_embed: `[M, D]` of unit length.
      text_image_index: `[M]`, the image of each caption (possibly many captions per image).
      text_ids: `[M]`, equal for captions with the same text (see `caption_ids`); None: a caption is
        relevant to its own image only.
      chunk_size: number of queries scored at once.
      first: for `image_to_text` and `text_to_image`, items that come first and their scores; see
        `ranks_and_precisions`.
      pair: names of the two modalities in the names of the metrics.

    Returns:
      `image_to_text/recall@1` ... and `text_to_image/recall@1` ...; recalls, mrr and map in [0, 1].

    Raises:
      ValueError: embeddings that are not finite, an index out of range, an image with no caption.

    Source: Recall@k as in Karpathy & Fei-Fei 2015, section 4.2 (arXiv:1412.2306).
    """
    index = np.asarray(text_image_index)
    if index.shape != (len(text_embed),) or len(index) == 0:
        raise ValueError(
            f"text_image_index has shape {index.shape} for {len(text_embed)} captions: retrieval "
            "needs one image for each caption, and at least one caption."
        )
    if index.min() < 0 or index.max() >= len(image_embed):
        raise ValueError(
            f"text_image_index runs from {index.min()} to {index.max()} and there are "
            f"{len(image_embed)} images: give indices from 0 to {len(image_embed) - 1}."
        )
    for name, embed in (("image_embed", image_embed), ("text_embed", text_embed)):
        # A comparison with NaN is false, which would put every query at rank 1.
        if not np.isfinite(embed).all():
            raise ValueError(f"{name} holds values that are not finite: retrieval has no ranks.")
    captions, relevant = relevance(len(image_embed), index, text_ids)
    one, other = pair
    directions = {
        f"{one}_to_{other}": (image_embed, text_embed, captions),
        f"{other}_to_{one}": (text_embed, image_embed, relevant),
    }
    return {
        f"{direction}/{name}": value
        for direction, given in directions.items()
        for name, value in summarize_ranks(
            *ranks_and_precisions(*given, chunk_size, (first or {}).get(direction))
        ).items()
    }


def chance_metrics(
    images: int, text_image_index: np.ndarray, text_ids: np.ndarray | None = None
) -> dict[str, float]:
    """Expectation of `retrieval_metrics` for a random order, in closed form.

    With r of G items relevant, P(rank > k) = C(G-r, k) / C(G, k), and the average precision is
    (H + (r-1)/(G-1) (G-H)) / G with H the G-th harmonic number. The median rank is over the rank
    distribution of all queries.

    Args:
      images: N; text_image_index: `[M]`; text_ids: `[M]` or None, as in `retrieval_metrics`.
    """
    captions, relevant = relevance(images, np.asarray(text_image_index), text_ids)
    result = {}
    for direction, sets, size in (
        ("image_to_text", captions, len(relevant)),
        ("text_to_image", relevant, images),
    ):
        place = np.arange(1, size + 1)
        harmonic = np.sum(1.0 / place)
        at_rank, precision = np.zeros(size), 0.0
        for count, queries in zip(*np.unique([len(s) for s in sets], return_counts=True)):
            fraction = queries / len(sets)
            beyond = np.cumprod(np.clip((size - count - place + 1) / (size - place + 1), 0, None))
            at_rank += fraction * -np.diff(beyond, prepend=1.0)
            further = (count - 1) / (size - 1) if size > 1 else 0.0
            precision += fraction * (harmonic + further * (size - harmonic)) / size
        reached = np.cumsum(at_rank)
        metrics = {f"recall@{k}": float(reached[min(k, size) - 1]) for k in RECALL_AT}
        metrics["median_rank"] = float(1 + np.searchsorted(reached, 0.5 - 1e-12))
        metrics |= {"mrr": float(np.sum(at_rank / place)), "map": float(precision)}
        result |= {f"{direction}/{name}": value for name, value in metrics.items()}
    return result
