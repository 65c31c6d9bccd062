"""Sources joined: every example of each, in order."""

import pytest
from tiny_clip import write_folder

from mmjax.data.open_source import open_source


def test_every_example_once_and_in_order(tmp_path):
    captions = []
    for name, count in (("a", 3), ("b", 5)):
        captions += write_folder(tmp_path / name, count)
    parts = [
        {"kind": "folder", "root": str(tmp_path / n), "captions": "captions.jsonl"} for n in "ab"
    ]
    source = open_source({"kind": "joined", "sources": parts}, workdir=tmp_path)
    assert len(source) == 8
    assert [source[i]["captions"][0] for i in range(8)] == captions
    with pytest.raises(IndexError, match="not one numbered 8"):
        source[8]


def test_an_empty_list_is_refused():
    with pytest.raises(ValueError, match="empty list of sources"):
        open_source({"kind": "joined", "sources": []})
