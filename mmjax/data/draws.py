"""Random numbers that follow from a seed and a place alone."""

import numpy as np

# What a stream of random numbers is for: two uses of one seed never meet.
AUGMENT, BATCH_AUGMENT, EVAL, PLACES = 0, 1, 2, 3


def row_rng(seed: int, row: int, use: int = AUGMENT) -> np.random.Generator:
    """The generator of one row (or step): the same wherever and whenever it is made.

    Counter-based (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), so rows
    need no common state. The low counter words stay free for the row's own draws.
    """
    return np.random.Generator(np.random.Philox(key=[seed, use], counter=[0, 0, 0, row]))
