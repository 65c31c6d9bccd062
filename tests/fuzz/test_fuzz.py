"""Every reader, on mutated files, raises nothing but a ValueError of ours: a few inputs of each.

`python -m tests.fuzz` gives more, with a bound on the time of an input, which no test asserts.
"""

import pytest

from tests.fuzz.run import READERS, fuzz, summary


@pytest.mark.parametrize("name", READERS)
def test_a_mutated_file_is_read_or_refused_in_one_sentence(name):
    count = READERS[name].tested
    done, faults = fuzz(name, count=count, bound=60)
    assert done.inputs == count
    assert not faults, summary(faults)


def test_what_a_reader_does_wrong_is_noticed(monkeypatch):
    def read(data, seed, folder):
        if data != seed.data:
            raise KeyError("a key")

    monkeypatch.setitem(READERS, "rle", READERS["rle"]._replace(read=read))
    done, faults = fuzz("rle", count=5)
    assert done.inputs == 5 and len(faults) >= 4
    assert "KeyError at test_fuzz.py" in summary(faults)
    assert fuzz("rle", first=faults[-1].number, count=1)[1] == faults[-1:]  # the same input again
