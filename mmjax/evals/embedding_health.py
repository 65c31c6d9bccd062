"""Statistics of contrastive embeddings: modality gap, alignment, uniformity, similarities."""

import numpy as np

from mmjax.evals.retrieval import score_chunks

BINS = 100


def modality_gap(image_embed: np.ndarray, text_embed: np.ndarray) -> float:
    """Distance between the centroids of `[N, D]` images and `[M, D]` texts, in [0, 2].

    Source: Liang et al. 2022 (arXiv:2203.02053), section 2.
    """
    return float(np.linalg.norm(image_embed.mean(axis=0) - text_embed.mean(axis=0)))


def alignment(x: np.ndarray, y: np.ndarray) -> float:
    """Mean squared distance of positive pairs `[N, D]`, `[N, D]`; 0 is perfect.

    Source: Wang & Isola 2020 (arXiv:2005.10242), section 4.1, alpha = 2.
    """
    return float(np.mean(np.sum(np.square(x - y), axis=1)))


def uniformity(x: np.ndarray, chunk_size: int = 1024) -> float:
    """log of the mean of exp(-2 d^2) over distinct pairs of unit vectors `[N, D]`; low is uniform.

    Source: Wang & Isola 2020 (arXiv:2005.10242), section 4.1, t = 2.
    """
    total = 0.0
    for _, scores in score_chunks(x, x, chunk_size):
        # For unit vectors d^2 = 2 - 2 cos.
        total += float(np.exp(4.0 * (scores.astype(np.float64) - 1.0)).sum())
    own = float(np.exp(4.0 * (np.sum(np.square(x, dtype=np.float64), axis=1) - 1.0)).sum())
    return float(np.log((total - own) / (len(x) * (len(x) - 1))))


def similarity_histograms(
    image_embed: np.ndarray,
    text_embed: np.ndarray,
    relevant: list[np.ndarray],
    chunk_size: int = 1024,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Histograms over [-1, 1] of the cosines of matching and of other image-text pairs.

    Args:
      image_embed: `[N, D]`; text_embed: `[M, D]`; relevant: indices of each text's images.

    Returns:
      Edges `[BINS + 1]`, counts of positives `[BINS]`, counts of negatives `[BINS]`.
    """
    edges = np.linspace(-1.0, 1.0, BINS + 1)
    positives, everything = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    for start, scores in score_chunks(text_embed, image_embed, chunk_size):
        scores = np.clip(scores, -1.0, 1.0)
        everything += np.histogram(scores, edges)[0]
        mine = [scores[row, relevant[start + row]] for row in range(len(scores))]
        positives += np.histogram(np.concatenate(mine), edges)[0]
    return edges, positives, everything - positives


def health_metrics(
    image_embed: np.ndarray, text_embed: np.ndarray, text_image_index: np.ndarray
) -> dict[str, float]:
    """Modality gap, alignment, uniformity per modality, mean cosine of positives and negatives.

    Args:
      image_embed: `[N, D]`; text_embed: `[M, D]`, both of unit length; text_image_index: `[M]`.
    """
    positive = np.sum(image_embed[text_image_index] * text_embed, axis=1, dtype=np.float64)
    total = float(
        image_embed.sum(axis=0, dtype=np.float64) @ text_embed.sum(axis=0, dtype=np.float64)
    )
    others = len(image_embed) * len(text_embed) - len(text_embed)
    return {
        "modality_gap": modality_gap(image_embed, text_embed),
        "alignment": alignment(image_embed[text_image_index], text_embed),
        "uniformity_image": uniformity(image_embed),
        "uniformity_text": uniformity(text_embed),
        "positive_cosine": float(positive.mean()),
        "negative_cosine": (total - float(positive.sum())) / max(1, others),
    }


def principal_plane(*groups: np.ndarray) -> list[np.ndarray]:
    """Project groups of points `[N, D]` on the two principal axes of their union: `[N, 2]` each.

    Source: the view of the modality gap in Liang et al. 2022 (arXiv:2203.02053), figure 1.
    """
    points = np.concatenate(groups).astype(np.float64)
    center = points.mean(axis=0, keepdims=True)
    _, _, axes = np.linalg.svd(points - center, full_matrices=False)
    return [(group - center) @ axes[:2].T for group in groups]
