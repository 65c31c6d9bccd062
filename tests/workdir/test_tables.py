"""Tables as text."""

import io

from mmjax.workdir import tables


def test_table_is_aligned():
    stream = io.StringIO()
    rows = [{"metric": "recall@1", "value": 0.51234}, {"metric": "rank", "value": 12, "n": 3}]
    tables.print_table(rows, "Results", stream)
    assert stream.getvalue().splitlines() == [
        "Results",
        "metric     value  n",
        "────────  ──────  ─",
        "recall@1  0.5123",
        "rank          12  3",
    ]
