"""What is kept while some variables are evaluated: by key, up to a limit, and no longer."""

import numpy as np
import pytest

from mmjax.run.kept import Kept


def test_results_are_kept_for_the_variables_of_the_round_and_no_longer():
    kept, ours, others, made = Kept(limit=100), {"params": 1}, {"params": 1}, []

    def make():
        made.append(np.arange(10, dtype=np.float64) + len(made))
        return made[-1], "ten"

    def first(variables, key):
        return kept.once(variables, key, make)[0][0]

    assert [first(ours, "a"), first(ours, "a")] == [0, 1]  # outside of a round
    with kept.during(ours):
        assert [first(ours, "a"), first(ours, "a")] == [2, 2]
        assert [first(others, "a"), first(ours, "a")] == [3, 2]  # equal is not the same
        assert [first(ours, "b"), first(ours, "b")] == [4, 5]  # beyond the limit: 160 bytes
        assert first(ours, "a") == 2
        with pytest.raises(ValueError, match="read-only"):
            kept.once(ours, "a", make)[0][0] = 7
    assert first(ours, "a") == 6
    with kept.during(ours):
        assert first(ours, "a") == 7


def test_an_error_ends_the_round():
    kept, ours = Kept(), {}
    with pytest.raises(KeyError), kept.during(ours):
        kept.once(ours, "a", lambda: (np.zeros(1),))
        raise KeyError("x")
    assert kept.once(ours, "a", lambda: (np.ones(1),))[0] == 1
