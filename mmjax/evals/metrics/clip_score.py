"""How well generated images match their texts, by the embeddings of a CLIP."""

import numpy as np
from jaxtyping import Float


def clip_scores(
    image_embed: Float[np.ndarray, "n d"], text_embed: Float[np.ndarray, "n d"]
) -> dict[str, float]:
    """The mean cosine of images and texts, and what is published under the name CLIP score.

    Args:
      image_embed, text_embed: of unit length.

    Returns:
      `clip_cosine`, the mean cosine. `clip_score_2.5x`, the mean of 2.5 max(cosine, 0), as in the
      paper. `clip_score_100x`, 100 times the mean cosine, at least 0, as in torchmetrics.

    Source: Hessel et al. 2021 (arXiv:2104.08718), equation 1; torchmetrics' CLIPScore.
    """
    cosine = np.sum(image_embed.astype(np.float64) * text_embed, axis=1)
    return {
        "clip_cosine": float(cosine.mean()),
        "clip_score_2.5x": float(2.5 * np.maximum(cosine, 0).mean()),
        "clip_score_100x": max(0.0, float(100 * cosine.mean())),
    }
