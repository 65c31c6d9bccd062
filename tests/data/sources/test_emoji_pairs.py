"""Statements about pairs of emoji: true where they say so, and not told by the sentence alone."""

import collections

import pytest

from mmjax.data.open_source import open_source
from mmjax.data.source import Source, without_media
from mmjax.data.sources import emoji_pairs
from mmjax.data.sources.emoji_pairs import WORDINGS, state

CATEGORIES = ("Food", "Animals", "Flags")


def emoji(n, style, tone=""):
    return {
        "image": b"%d %s" % (n, style.encode()),
        "codepoints": f"{n:x}",
        "category": CATEGORIES[n % 3],
        "skin_tone": tone,
        "group": f"{n // 2:x}",  # two concepts of a group, such as a woman and a man
        "style": style,
    }


@pytest.fixture(scope="module")
def images():
    styles = ("twemoji", "openmoji")
    tones = [emoji(n, "twemoji", "light skin tone") for n in range(5)]
    return [*(emoji(n, style) for n in range(24) for style in styles), *tones]


def true(statement, images):
    """What the sentence says, by its words."""
    pair = [images[i] for i in (statement.left, statement.right)]
    words = statement.text.split()
    of = [x["category"].lower() in words for x in pair]
    if statement.type == "same_thing":
        return pair[0]["codepoints"] == pair[1]["codepoints"]
    if statement.type == "same_style":
        return pair[0]["style"] == pair[1]["style"]
    if statement.type in ("left", "right"):
        assert statement.type in words
        return of[statement.type == "right"]
    return {"both": all(of), "one": sum(of) == 1}[statement.type]


def test_they_are_true_where_they_say_so(images):
    found = state(images)
    assert found == state(images)
    assert {s.type for s in found} == set(WORDINGS) and len(found) == 48 * 6 * 4
    for statement in found:
        assert statement.true == true(statement, images)
        pair = [images[i] for i in (statement.left, statement.right)]
        assert not any(x["skin_tone"] for x in pair) and statement.left != statement.right
        if statement.type == "same_thing":  # which does not show in the style
            assert pair[0]["style"] != pair[1]["style"]
    pairs = collections.Counter((s.type, s.true, s.left < s.right) for s in found)
    assert min(pairs.values()) > 0.3 * max(pairs.values())  # on either side


def test_a_sentence_tells_nothing(images):
    found = state(images)
    of_sentence = collections.defaultdict(list)
    for statement in found:
        of_sentence[statement.sentence_id].append(statement)
    for four in of_sentence.values():
        assert len({s.text for s in four}) == 1
        assert sorted(s.true for s in four) == [False, False, True, True]
    texts = collections.Counter((s.text, s.true) for s in found)
    assert all(texts[text, not truth] == count for (text, truth), count in texts.items())


def test_a_type_is_left_out_where_a_partner_is_missing(images):
    one_style = [x for x in images if x["style"] == "twemoji"]
    assert {s.type for s in state(one_style)} == {*WORDINGS} - {"same_thing", "same_style"}


class Listed(Source):
    class_names = None

    def __init__(self, rows):
        self.name, self.rows, self.read = "listed", rows, 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        self.read += 1
        return self.rows[i]

    def meta(self, i):
        return without_media(self.rows[i])


def test_the_source(images, monkeypatch):
    parts = {"unseen_test": Listed(images[:20]), "unseen_test_openmoji": Listed(images[20:])}
    monkeypatch.setattr(emoji_pairs, "open_tfds", lambda name, split, _: parts[split])
    source = open_source({"kind": "emoji_pairs", "split": "test", "types": ["one", "left"]})
    meta = [source.meta(i) for i in range(len(source))]
    assert not parts["unseen_test"].read
    assert {m["statement_type"] for m in meta} == {"one", "left"}
    assert len({m["key"] for m in meta}) == len(source) == 48 * 2 * 4
    for i in range(0, len(source), 7):
        asked = source.statements[i]
        pair = tuple(images[j]["image"] for j in (asked.left, asked.right))
        assert source[i] == {**meta[i], "image": pair}
        assert source.class_names[meta[i]["label"]] == str(asked.true).lower()


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="no split 'unseen'; they have .*'train'"):
        open_source({"kind": "emoji_pairs", "split": "unseen"})
    with pytest.raises(ValueError, match=r"types are \['same'\]: use .*'same_thing'"):
        open_source({"kind": "emoji_pairs", "split": "test", "types": ["same"]})
