"""WordNet's nouns from a small file in its format."""

import pytest

from mmjax.data.builders.wordnet import Synset, members, read_nouns

LICENSE = "  1 This software and database is being provided to you\n"
NOUNS = """\
00000001 03 n 01 entity 0 001 ~ 00000002 n 0000 | that which exists; "an entity"
00000002 05 n 02 dog 0 domestic_dog 0 003 @ 00000001 n 0000 ~ 00000003 n 0000 #m 00000009 n 0000 | a canine; barks; "the dog barked"
00000003 05 n 01 pug 0 001 @ 00000002 n 0000 | a small dog
00000004 05 n 0a a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 002 @i 00000002 n 0000 + 00000007 v 0101 | Rex
"""  # noqa: E501


def test_words_definitions_and_what_they_are_a_kind_of(tmp_path):
    (tmp_path / "data.noun").write_text(LICENSE + NOUNS)
    nouns = read_nouns(tmp_path / "data.noun")
    assert list(nouns) == ["n00000001", "n00000002", "n00000003", "n00000004"]
    dog = Synset(("dog", "domestic dog"), "a canine; barks", ("n00000001",))
    assert nouns["n00000002"] == dog
    assert len(nouns["n00000004"].words) == 10 and nouns["n00000004"].kind_of == ("n00000002",)
    above = members(nouns, ["n00000004", "n00000001", "n00000003"])
    assert above == {"n00000002": [0, 2], "n00000001": [0, 2]}


def test_another_file_is_refused_by_its_line(tmp_path):
    (tmp_path / "data.noun").write_text(LICENSE + NOUNS.splitlines()[0] + "\nsome text\n")
    with pytest.raises(ValueError, match=r"data.noun, line 3, is no noun .*'some text'.*wordnet-b"):
        read_nouns(tmp_path / "data.noun")
