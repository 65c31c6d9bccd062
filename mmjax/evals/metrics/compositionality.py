"""Scores of pairs of images and captions that are each other's distractors."""

import numpy as np
from jaxtyping import Float


def winoground_scores(scores: Float[np.ndarray, "g 2 2"]) -> dict[str, float]:
    """`text_score`, `image_score` and `group_score`, fractions of the groups.

    Chance is 1/4, 1/4 and 1/6. Equal scores count as wrong.

    Args:
      scores: of caption i with image j of each group; (0, 0) and (1, 1) belong together.

    Source: Thrush et al. 2022 (arXiv 2204.03162), equations 1 to 3.
    """
    own = scores[:, [0, 1], [0, 1]]  # of caption 0 and 1 with its image
    # Of each image the own caption is ahead; of each caption the own image.
    text = (own > scores[:, [1, 0], [0, 1]]).all(axis=1)
    image = (own > scores[:, [0, 1], [1, 0]]).all(axis=1)
    return {
        "text_score": float(text.mean()),
        "image_score": float(image.mean()),
        "group_score": float((text & image).mean()),
    }
