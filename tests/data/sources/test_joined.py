"""Sources joined: every example of each, in order."""

import pytest
from flowers import picture
from rectangles import Rectangles
from tiny_clip import write_folder

from mmjax.data.open_source import open_source
from mmjax.data.sources.grounded_instructions import open_grounded_instructions
from mmjax.data.sources.joined import Joined


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


def test_the_corpus_is_that_of_the_parts_if_all_have_one():
    one, two = (open_grounded_instructions(Rectangles(3), 4, tasks=(t,)) for t in ("where", "what"))
    assert Joined([one, two]).corpus == [*one.corpus, *two.corpus] and one.corpus != two.corpus
    assert Joined([one, Rectangles(3)]).corpus is None


def test_an_empty_list_is_refused():
    with pytest.raises(ValueError, match="empty list of sources"):
        open_source({"kind": "joined", "sources": []})


def test_labels_are_joined_by_the_names_of_their_classes(tmp_path):
    """The folders number red 0 and 1: joined it is 2 in both."""
    for part, classes in (("a", ["green", "red"]), ("b", ["blue", "green", "red"])):
        for name in classes:
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "1.png").write_bytes(picture())
    parts = [{"kind": "folder", "root": str(tmp_path / n), "data_dir": tmp_path} for n in "ab"]
    source = open_source({"kind": "joined", "sources": parts}, workdir=tmp_path)
    assert source.class_names == ["blue", "green", "red"]
    for i in range(5):
        example = source[i]
        assert source.class_names[example["label"]] == example["key"].split("/")[0]
        assert source.meta(i)["label"] == example["label"]
    (tmp_path / "a" / "red").rename(tmp_path / "a" / "pink")
    other = open_source({"kind": "joined", "sources": parts}, workdir=tmp_path)
    assert other.class_names is None and "label" not in other[0]
