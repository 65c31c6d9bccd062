"""Random number generators that depend only on a seed and a row (or step) number."""

import numpy as np

# Purpose of a random stream: streams of one seed for different purposes are independent.
AUGMENT, BATCH_AUGMENT, EVAL, PLACES = 0, 1, 2, 3


def row_rng(seed: int, row: int, use: int = AUGMENT) -> np.random.Generator:
    """The generator of one row (or step): the same in every process and after every restart.

    Counter-based (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), so rows
    share no state. The low counter words are left for the row's own draws.
    """
    return np.random.Generator(np.random.Philox(_Key(seed, use), counter=[0, 0, 0, row]))


class _Key(np.random.bit_generator.ISeedSequence):
    """A key as Philox takes it from a seed: with `key=`, NumPy first seeds itself from the system,
    which takes twice as long as all the rest."""

    def __init__(self, seed: int, use: int):
        self._words = np.array([seed, use], np.uint64)

    def generate_state(self, n_words: int, dtype: type = np.uint32) -> np.ndarray:
        return self._words
