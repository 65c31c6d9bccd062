"""Normalizers against transformers, error counts against jiwer (transcripts.json)."""

import json
from pathlib import Path

import pytest

from mmjax.evals.metrics import transcripts, word_errors

GOLDEN = json.loads(Path(__file__).with_name("transcripts.json").read_text(encoding="utf-8"))


def test_normalized_texts_are_those_of_the_original():
    spellings = GOLDEN["spellings"]
    for text, english, basic, plain in GOLDEN["cases"]:
        assert transcripts.english(text, spellings) == english, text
        assert transcripts.basic(text) == basic, text
        assert transcripts.basic(text, remove_diacritics=True) == plain, text


def test_spellings_are_read_from_a_published_folder(tmp_path):
    assert transcripts.read_spellings(tmp_path) == {}
    assert transcripts.english("Colour") == "colour"
    path = tmp_path / "normalizer.json"
    path.write_text('{"colour": "color"}')
    assert transcripts.english("Colour", transcripts.read_spellings(tmp_path)) == "color"
    for wrong in ("{", "[]"):
        path.write_text(wrong)
        with pytest.raises(ValueError, match="copy it again"):
            transcripts.read_spellings(tmp_path)


def test_counts_are_those_of_jiwer():
    for references, hypotheses, words, characters in GOLDEN["errors"]:
        assert [*word_errors.word_errors(references, hypotheses)] == words
        assert [*word_errors.character_errors(references, hypotheses)] == characters


def test_an_alignment_rewrites_the_reference():
    pairs = word_errors.align(list("abcd"), list("axcedf"))
    assert [a for a, _ in pairs if a is not None] == ["a", "b", "c", "d"]
    assert [b for _, b in pairs if b is not None] == ["a", "x", "c", "e", "d", "f"]
    assert word_errors.show(pairs).splitlines() == [
        "a b c * d *",
        "a x c e d f",
        "  S   I   I",
    ]


def test_rates_of_a_corpus():
    errors = word_errors.word_errors(["a b c", ""], ["a x", "b"])
    assert errors == (1, 1, 1, 1)
    assert errors.rate == 1.0  # three errors in three words
    assert word_errors.word_errors([""], ["a b"]).rate == 2.0
    assert word_errors.word_errors(["", " "], ["", ""]).rate == 0.0
    assert word_errors.word_errors(["a\tb\n"], ["a b"]).rate == 0.0
    with pytest.raises(ValueError, match="1 references and 2 hypotheses"):
        word_errors.word_errors(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="one of each"):
        word_errors.word_errors([], [])
