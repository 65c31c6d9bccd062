"""Hypernyms of classes, read from a small file in WordNet's format."""

import numpy as np
import pytest

from mmjax.data.builders import wordnet_kinds
from mmjax.data.builders.imagenet_classes import ImageNetClass
from mmjax.data.builders.wordnet_kinds import Kind, apart, kinds
from mmjax.photos.features import ClassNames

# Two names have the number 02 in hexadecimal; "+" is no hypernym, "@i" is that of an instance.
NOUNS = """  1 a license
00000001 03 n 01 entity 0 000 | that which exists
00000002 05 n 02 dog 0 domestic_dog 0 001 @ 00000001 n 0000 | a member of Canis; "the dog barked"
00000003 05 n 01 pug 0 002 @ 00000002 n 0000 + 00000009 a 0101 | small
00000004 05 n 01 collie 0 002 @ 00000002 n 0000 @ 00000006 n 0000 | silky
00000005 18 n 01 Lassie 0 001 @i 00000004 n 0000 | a film
00000006 05 n 01 worker 0 001 @ 00000001 n 0000 | one that works
00000007 06 n 01 bus 0 001 @ 00000006 n 0000 | a vehicle
"""
CLASSES = [ImageNetClass(f"n0000000{i}", ("x",), "y") for i in (3, 4, 5, 7)]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data.noun").write_text(NOUNS)
    return tmp_path


def test_kinds_are_hypernyms_at_any_distance(folder, monkeypatch):
    entity, dog, worker = kinds(CLASSES, folder)
    assert entity == Kind("n00000001", ("entity",), "that which exists", (0, 1, 2, 3))
    assert dog == Kind("n00000002", ("dog", "domestic dog"), "a member of Canis", (0, 1, 2))
    assert worker.members == (1, 2, 3)
    monkeypatch.setattr(wordnet_kinds, "MOST", 3)
    assert kinds(CLASSES, folder) == [dog, worker]
    # Of the second, one class is free; of the first, all are.
    assert apart([dog, worker], most=3, least=2) == [dog]
    other = worker._replace(members=(2, 3, 4, 5, 6, 7))
    assert apart([dog, other], most=6, least=2) == [other]
    assert apart([dog, other, entity], most=5, least=2) == [entity]
    with pytest.raises(ValueError, match="apt-get download wordnet-base"):
        kinds(CLASSES, folder / "missing")


def test_a_kind_has_the_mean_of_its_classes(folder):
    vectors = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32) * 3
    source = ClassNames(CLASSES, vectors, kinds(CLASSES, folder)[1:])
    assert [source[i]["key"] for i in (3, 4, 5)] == ["n00000007", "n00000002", "n00000006"]
    assert "a photo of a domestic dog" in source[4]["captions"] and len(source) == 6
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    mean = units[:3].sum(axis=0)
    want = mean / np.linalg.norm(mean)
    np.testing.assert_allclose(source[4]["image_features"], want, rtol=1e-5)
    np.testing.assert_allclose(source[1]["image_features"], units[1], rtol=1e-6)
