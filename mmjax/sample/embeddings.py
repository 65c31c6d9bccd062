"""Points between embeddings, from which a decoder of embeddings makes images."""

import numpy as np
from jaxtyping import Float


def slerp(
    start: Float[np.ndarray, " d"], end: Float[np.ndarray, " d"], fractions: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n d"]:
    """Unit vectors on the great circle from one unit vector to another.

    Args:
      fractions: of the way, 0 at the start and 1 at the end.

    Raises:
      ValueError: opposite vectors, between which there is no one way.

    Source: Shoemake 1985, "Animating rotation with quaternion curves", section 3.3; DALL-E 2,
    Ramesh et al. 2022 (arXiv 2204.06125), section 3.2.
    """
    cosine = float(np.clip(start @ end, -1, 1))
    if cosine < -1 + 1e-6:
        raise ValueError("The two embeddings are opposite: there is no one way between them.")
    angle, t = np.arccos(cosine), np.asarray(fractions)[:, None]
    if angle < 1e-4:
        found = (1 - t) * start[None] + t * end[None]
    else:
        found = np.sin((1 - t) * angle) * start[None] + np.sin(t * angle) * end[None]
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def noise_between(
    start: Float[np.ndarray, "..."],
    end: Float[np.ndarray, "..."],
    fractions: Float[np.ndarray, " n"],
) -> Float[np.ndarray, "n ..."]:
    """Noise from one array of it to another, as `slerp`, with lengths between theirs.

    Source: DALL-E 2, Ramesh et al. 2022 (arXiv 2204.06125), section 3.2.
    """
    ends = [x.reshape(-1).astype(np.float64) for x in (start, end)]
    lengths = [np.linalg.norm(x) for x in ends]
    way = slerp(*(x / length for x, length in zip(ends, lengths)), fractions)
    found = np.interp(fractions, [0, 1], lengths)[:, None] * way
    return found.reshape(-1, *start.shape).astype(np.float32)


def text_diff(
    image: Float[np.ndarray, " d"],
    before: Float[np.ndarray, " d"],
    after: Float[np.ndarray, " d"],
    fractions: Float[np.ndarray, " n"],
) -> Float[np.ndarray, "n d"]:
    """An image's embedding rotated towards the difference of two texts' embeddings, all of unit
    length.

    Args:
      fractions: of the way to the unit vector of after - before; the paper's largest are 0.25 to
        0.5.

    Raises:
      ValueError: equal texts.

    Source: DALL-E 2, Ramesh et al. 2022 (arXiv 2204.06125), section 3.3.
    """
    difference = after - before
    length = np.linalg.norm(difference)
    if length < 1e-6:
        raise ValueError("The two texts have the same embedding: there is nothing to change.")
    return slerp(image, difference / length, fractions)
