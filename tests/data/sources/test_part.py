"""Parts of a source: what is held out is held out, and nothing is lost."""

import numpy as np
import pytest
from PIL import Image

from mmjax.data.open_source import open_source
from mmjax.data.sources import part


@pytest.fixture
def folder(tmp_path):
    for kind in ("cat", "dog"):
        (tmp_path / "images" / kind).mkdir(parents=True)
        for i in range(10):
            pixels = np.full((4, 4, 3), 10 * i, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / kind / f"{i}.png")
    return {"kind": "folder", "root": str(tmp_path / "images"), "data_dir": str(tmp_path)}


@pytest.mark.parametrize("most", [1 << 24, 5])  # 5: the permutation is computed
def test_parts_share_nothing_and_make_the_whole(folder, most, monkeypatch):
    monkeypatch.setattr(part, "MOST", most)
    parts = [
        open_source({"kind": "part", "source": folder, "start": a, "stop": b})
        for a, b in ((0.0, 0.7), (0.7, 0.9), (0.9, 1.0))
    ]
    keys = [[one[i]["key"] for i in range(len(one))] for one in parts]
    assert [len(k) for k in keys] == [14, 4, 2]
    whole = open_source(folder)
    assert sorted(sum(keys, [])) == sorted(whole[i]["key"] for i in range(20))
    assert {parts[0][i]["label"] for i in range(14)} == {0, 1}  # shuffled
    assert parts[0].class_names == ["cat", "dog"]


def test_an_empty_part_is_refused(folder):
    with pytest.raises(ValueError, match="from 0.99 to 1.0 of 20 examples, which leaves none"):
        open_source({"kind": "part", "source": folder, "start": 0.99})
