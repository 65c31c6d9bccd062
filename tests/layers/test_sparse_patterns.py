"""Attention patterns beside a slow reference with loops over the grid."""

import numpy as np
import pytest
from slow_patterns import slow

from mmjax.layers.sparse_patterns import PATTERNS, attends, check_patterns, layer_patterns


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    ("text", "rows", "columns", "kernel"),
    [(6, 4, 4, 3), (3, 5, 7, 3), (1, 7, 3, 11), (4, 6, 5, 5), (2, 12, 13, 11), (5, 3, 1, 3)],
)
def test_the_masks(pattern, text, rows, columns, kernel):
    place = np.arange(text + rows * columns, dtype=np.int32)
    found = attends(pattern, place[:, None], place[None], text, columns, kernel)
    np.testing.assert_array_equal(found, slow(pattern, text, rows, columns, kernel))


def test_the_layers_of_the_paper():
    assert layer_patterns(6) == ("row", "column", "row", "row", "row", "convolution")
    found = layer_patterns(64)
    assert len(found) == 64 and found.count("column") == 16 and found.count("convolution") == 1
    assert [i for i in range(1, 64) if found[i - 1] == "column"] == [*range(2, 64, 4)]
    with pytest.raises(ValueError, match=r"\['row', 'diagonal'\] for 2 layers"):
        check_patterns(("row", "diagonal"), 2)
    with pytest.raises(ValueError, match="for 3 layers"):
        check_patterns(("row", "full"), 3)
