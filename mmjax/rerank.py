"""Choosing among sampled images by a CLIP: those that fit their texts best.

Source: Ramesh et al. 2021 (arXiv 2102.12092), section 2.6.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmjax.batch import Batch
from mmjax.embedder import Embedder, open_embedder

Arrays = Mapping[str, np.ndarray]


def chooser(
    settings: Mapping[str, Any], tokenizer: Any
) -> tuple[dict[str, Any], Callable[[Arrays, Batch], Arrays]]:
    """Settings for `System.sample`, and a function that chooses among what it gives for a batch.

    The function takes NumPy arrays, `candidates` [B, C, H, W, 3] among them, and gives those of the
    best candidate, `image` [B, H, W, 3], with its cosine, `score` [B]; without candidates it
    changes nothing.

    Args:
      settings: with `candidates` above 1 also `rerank`, the path of a CLIP, see `mmjax.load`, and
        optionally `rerank_fingerprint`, which must be that of the CLIP.
      tokenizer: of the system that samples; gives the texts of its batches.

    Raises:
      ValueError: several candidates and no CLIP, or one with another fingerprint.
    """
    settings = dict(settings)
    path, known = (settings.pop(k, "") for k in ("rerank", "rerank_fingerprint"))
    if settings.get("candidates", 1) == 1:
        return settings, lambda found, batch: found
    if not path:
        raise ValueError(
            f"sample.candidates is {settings['candidates']} and sample.rerank is not set: name a "
            "CLIP that chooses among the candidates, or set candidates to 1."
        )
    embedder = open_embedder(path)
    if known and embedder.fingerprint != known:
        raise ValueError(
            f"sample.rerank_fingerprint is {known}, and the model in '{path}' has "
            f"{embedder.fingerprint}: it is another CLIP, or was trained anew; name the right one, "
            "or leave the fingerprint out."
        )

    def choose(found: Arrays, batch: Batch) -> Arrays:
        scores = cosines(embedder, found["candidates"], decoded(tokenizer, batch))
        best, rows = scores.argmax(1), np.arange(len(scores))
        chosen = {name: np.asarray(x)[rows, best] for name, x in found.items()}
        return {"image": chosen.pop("candidates"), **chosen, "score": scores[rows, best]}

    return settings, choose


def decoded(tokenizer: Any, batch: Batch) -> list[str]:
    """The texts of a batch."""
    rows = zip(np.asarray(batch["text"]), np.asarray(batch["text_mask"]))
    return [tokenizer.decode(text[mask]) for text, mask in rows]


def cosines(embedder: Embedder, images: np.ndarray, texts: list[str]) -> np.ndarray:
    """[B, C] float32 of C images for each text: images [B, C, H, W, 3] uint8; 0 without a text."""
    flat = [embedder.loaded.image(x) for x in images.reshape(-1, *images.shape[2:])]
    image = embedder.images(flat).reshape(*images.shape[:2], -1)
    found = np.einsum("bcd,bd->bc", image, embedder.texts(texts))
    return np.where(np.asarray([bool(x) for x in texts])[:, None], found, np.float32(0))
