"""Random number generators that depend only on a seed and a row (or step) number."""

import numpy as np

# Purpose of a random stream: streams of one seed for different purposes are independent.
AUGMENT, BATCH_AUGMENT, EVAL, PLACES = 0, 1, 2, 3


def row_rng(seed: int, row: int, use: int = AUGMENT) -> np.random.Generator:
    """The generator of one row (or step): the same in every process and after every restart.

    Counter-based (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), so rows
    share no state. The low counter words are left for the row's own draws.
    """
    return np.random.Generator(np.random.Philox(key=[seed, use], counter=[0, 0, 0, row]))
