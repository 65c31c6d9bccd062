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

from mmjax.evals.rank_counts import TIE, irrelevant_ahead

RECALL_AT = (1, 5, 10)


def caption_ids(texts: Sequence[str]) -> np.ndarray:
    """`[M]` int64: equal for captions with the same text up to case and white space."""
    known: dict[str, int] = {}
    return np.asarray(
        [known.setdefault(" ".join(t.casefold().split()), len(known)) for t in texts], np.int64
    )


def relevant_pairs(
    text_image_index: np.ndarray, text_ids: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(image, text) `[P]` each: the images relevant to each of M texts, by text and image."""
    index = np.asarray(text_image_index, np.int64)
    texts = np.arange(len(index))
    if text_ids is None or not len(index):
        return index, texts
    _, group = np.unique(text_ids, return_inverse=True)
    group, size = group.reshape(-1), 1 + int(index.max())
    # The distinct images of each text, sorted by group, and by image within it.
    of_group, image = np.divmod(np.unique(group * size + index), size)
    first = np.searchsorted(of_group, np.arange(1 + group.max() + 1))
    counts = np.diff(first)[group]
    text = np.repeat(texts, counts)
    place = np.arange(len(text)) - np.repeat(np.cumsum(counts) - counts, counts)
    return image[first[group[text]] + place], text


def relevant_images(text_image_index: np.ndarray, text_ids: np.ndarray) -> list[np.ndarray]:
    """For each of M captions, the sorted indices of the images that have the same text."""
    image, text = relevant_pairs(text_image_index, text_ids)
    return np.split(image, np.searchsorted(text, np.arange(1, len(text_ids))))


def relevance(
    images: int, text_image_index: np.ndarray, text_ids: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """`relevant_pairs` of N images.

    Raises:
      ValueError: an image without a caption.
    """
    image, text = relevant_pairs(text_image_index, text_ids)
    bare = np.flatnonzero(np.bincount(image, minlength=images) == 0)
    if len(bare):
        raise ValueError(
            f"{len(bare)} images have no caption (the first is image {bare[0]}): leave them out of "
            "the retrieval gallery or give each a caption."
        )
    return image, text


def score_chunks(
    queries: np.ndarray, gallery: np.ndarray, chunk_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first query, scores `[c, G]`) in chunks, to limit memory to chunk_size x G."""
    gallery = np.asarray(gallery, np.float32)
    for start in range(0, len(queries), chunk_size):
        yield start, np.asarray(queries[start : start + chunk_size], np.float32) @ gallery.T


def nearest(
    queries: np.ndarray, gallery: np.ndarray, count: int, chunk_size: int = 256
) -> np.ndarray:
    """`[Q, k]`: the items of the gallery with the largest scores, k = count or all of them."""
    count = min(count, len(gallery))
    found = np.empty((len(queries), count), np.int64)
    for start, scores in score_chunks(queries, gallery, chunk_size):
        for row, scored in enumerate(scores, start=start):
            least = np.partition(scored, len(scored) - count)[len(scored) - count]
            items = np.flatnonzero(scored >= least)
            found[row] = items[np.argsort(-scored[items], kind="stable")][:count]
    return found


def ranks_and_precisions(query: np.ndarray, ahead: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank of the best relevant item (from 1) and average precision, `[Q]` each.

    Args:
      query: `[P]`, that of each relevant pair, every one from 0 to Q - 1 at least once.
      ahead: `[P]`, the number of irrelevant items that rank before the pair's item.
    """
    order = np.lexsort((ahead, query))
    query, ahead = query[order], ahead[order]
    first = np.searchsorted(query, np.arange(1 + query[-1]))
    found = 1 + np.arange(len(query)) - first[query]
    precisions = np.bincount(query, found / (found + ahead)) / np.bincount(query)
    return 1 + ahead[first], precisions


def reranked(
    query: np.ndarray,
    item: np.ndarray,
    ahead: np.ndarray,
    first: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """`ahead` `[P]` of relevant pairs after the nearest items of each query got new scores.

    Args:
      query, item: `[P]`; ahead: `[P]` before, which stays for all items but the nearest.
      first: the nearest items `[Q, k]`, and their scores `[Q, k]` in float64.
    """
    nearest_items, scores = first
    size = 1 + max(int(item.max()), int(nearest_items.max(initial=0)))
    keys = query * size + item
    order = np.argsort(keys)
    wanted = np.arange(len(nearest_items))[:, None] * size + nearest_items
    place = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
    relevant = keys[order[place]] == wanted
    rows, columns = np.nonzero(relevant)
    reach = scores[rows] >= scores[rows, columns][:, None] - TIE
    result = ahead.copy()
    result[order[place[rows, columns]]] = np.sum(reach & ~relevant[rows], axis=1)
    return result


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
    chunk_size: int = 512,
    first: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    pair: Sequence[str] = ("image", "text"),
) -> dict[str, float]:
    """Recall@1/5/10, median rank, MRR and mAP of both directions on the full gallery.

    Args:
      image_embed: `[N, D]` of unit length; text_embed: `[M, D]` of unit length.
      text_image_index: `[M]`, the image of each caption (possibly many captions per image).
      text_ids: `[M]`, equal for captions with the same text (see `caption_ids`); None: a caption is
        relevant to its own image only.
      chunk_size: number of images scored at once.
      first: for `image_to_text` and `text_to_image`, the nearest items and their new scores; see
        `reranked`. The result then has both, `reranked/image_to_text/recall@1` and so on.
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
        # A comparison with NaN is false, which would put every query at rank 1. A float64 sum of
        # finite float32 values is finite, and needs no array of their size.
        if not np.isfinite(np.sum(embed, dtype=np.float64)):
            raise ValueError(f"{name} holds values that are not finite: retrieval has no ranks.")
    image, text = relevance(len(image_embed), index, text_ids)
    ahead = irrelevant_ahead(image_embed, text_embed, image, text, chunk_size)
    one, other = pair
    ways = {
        f"{one}_to_{other}": (image, text, ahead[0]),
        f"{other}_to_{one}": (text, image, ahead[1]),
    }
    result = _metrics(ways)
    if first is not None:
        again = {
            way: (q, item, reranked(q, item, n, first[way])) for way, (q, item, n) in ways.items()
        }
        result |= {f"reranked/{name}": value for name, value in _metrics(again).items()}
    return result


def _metrics(ways: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, float]:
    """The metrics of each direction, from the query and item of each pair and what is ahead."""
    return {
        f"{way}/{name}": value
        for way, (query, _, ahead) in ways.items()
        for name, value in summarize_ranks(*ranks_and_precisions(query, ahead)).items()
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
    image, text = relevance(images, np.asarray(text_image_index), text_ids)
    texts, result = len(text_image_index), {}
    for direction, relevant, size in (
        ("image_to_text", np.bincount(image), texts),
        ("text_to_image", np.bincount(text), images),
    ):
        place = np.arange(1, size + 1)
        harmonic = np.sum(1.0 / place)
        at_rank, precision = np.zeros(size), 0.0
        for count, queries in zip(*np.unique(relevant, return_counts=True)):
            fraction = queries / len(relevant)
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
