"""Choosing among sampled images by a CLIP: the images that fit their texts best.

Source: Ramesh et al. 2021 (arXiv 2102.12092), section 2.6.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.batch import Batch
from mmjax.embedder import Embedder, open_embedder


class Reranker:
    """Cosines of images and texts by a CLIP: `rerank` of a system that samples images.

    Args:
      tokenizer: that of the system, which gives the texts of its batches.

    Attributes:
      fingerprint: of the CLIP, see `Embedder`.
    """

    def __init__(self, embedder: Embedder, tokenizer: Any):
        self._embedder, self._tokenizer = embedder, tokenizer
        self.fingerprint = embedder.fingerprint

    def __call__(self, images: np.ndarray, batch: Batch) -> np.ndarray:
        """Scores [B, C] of C candidates for each text: images [B, C, H, W, 3] uint8.

        Candidates for a text without any word have the score 0.
        """
        rows = zip(batch["text"], batch["text_mask"])
        texts = [self._tokenizer.decode(text[mask]) for text, mask in rows]
        flat = [self._embedder.loaded.image(x) for x in images.reshape(-1, *images.shape[2:])]
        image = self._embedder.images(flat).reshape(*images.shape[:2], -1)
        cosines = np.einsum("bcd,bd->bc", image, self._embedder.texts(texts))
        return np.where(np.asarray([bool(x) for x in texts])[:, None], cosines, 0.0)


def with_reranker(settings: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Settings of sampling whose `rerank`, the path of a CLIP, is a `Reranker`.

    `rerank_fingerprint`, if it is there and not "", is removed and must be the CLIP's.

    Raises:
      ValueError: no CLIP there, or one with another fingerprint.
    """
    settings = dict(settings)
    known = settings.pop("rerank_fingerprint", "")
    path = settings.get("rerank")
    if not isinstance(path, str | Path):
        return settings
    ranks = Reranker(open_embedder(path), tokenizer)
    if known and ranks.fingerprint != known:
        raise ValueError(
            f"sample.rerank_fingerprint is {known}, and the model in '{path}' has "
            f"{ranks.fingerprint}: it is another CLIP, or was trained anew; name the right one, "
            "or leave the fingerprint out."
        )
    return {**settings, "rerank": ranks}
