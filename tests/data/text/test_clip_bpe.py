"""CLIP's tokenizer against a slow byte-pair encoding, and published ids."""

import html
import json
import re

import ftfy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_bpe import ALPHABET, CORPUS, LETTER, clip_reference, encode_one, letters_of, write_gz

from mmjax.data.text import clip_vocab
from mmjax.run.tokenizer import make_tokenizer


@settings(max_examples=150)
@given(text=st.text(ALPHABET, max_size=40))
def test_clip_equals_the_slow_reference(clip, clip_merges, text):
    expected = clip_reference(" ".join(text.split()), clip_merges)
    assert encode_one(clip, text) == [clip.bos_id, *expected, clip.eos_id]


@pytest.mark.parametrize("text", CORPUS)
def test_clip_equals_the_slow_reference_on_its_corpus(clip, clip_merges, text):
    expected = clip_reference(text.lower(), clip_merges)
    assert len(expected) < sum(map(len, map(letters_of, text.split())))  # merges did happen
    assert encode_one(clip, text) == [clip.bos_id, *expected, clip.eos_id]


def test_clip_cleans_text(clip):
    clean = encode_one(clip, 'a "red" cat\'s fine & dog')
    for dirty in (
        "  A “red”\tcat’s \n ﬁne &amp;amp; dog ",
        'ａ "RED" cat\'s fine &amp; dog\u0007',
    ):
        assert encode_one(clip, dirty) == clean


def original_clean(text):
    """clip/simple_tokenizer.py: basic_clean, whitespace_clean, lower."""
    text = ftfy.fix_text(text)
    text = html.unescape(html.unescape(text)).strip()
    return re.sub(r"\s+", " ", text).strip().lower()


@given(st.one_of(st.text(), st.text(alphabet="aB &;lgt<>#39'\"x\t\\", max_size=30)))
def test_clip_cleans_as_the_original_does(text):
    assert clip_vocab.clean(text) == original_clean(text)


def test_clip_repairs_wrongly_decoded_text():
    assert clip_vocab.clean("The Mona Lisa doesnÃ¢â‚¬â„¢t have eyebrows. schÃ¶n") == (
        "the mona lisa doesn't have eyebrows. schön"
    )


def test_clip_from_vocab_and_merges_equals_gz(clip, clip_merges, tmp_path):
    order = sorted(LETTER.values(), key=lambda c: (ord(c) >= 256, ord(c)))
    tokens = order + [c + "</w>" for c in order] + [a + b for a, b in clip_merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in clip_merges)]
    (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    other = make_tokenizer({"kind": "clip_bpe", "path": str(tmp_path)})
    for text in CORPUS:
        assert encode_one(other, text) == encode_one(clip, text)
    assert other.fingerprint == clip.fingerprint


# Merges of bpe_simple_vocab_16e6.txt.gz that these words need, at their published ranks.
PUBLISHED = {
    19: "t o</w>",
    24: "a t</w>",
    27: "o f</w>",
    47: "r a",
    58: "d i",
    90: "a g",
    94: "h o",
    304: "p ho",
    613: "pho to</w>",
    1417: "do g</w>",
    127: "d o",
    1495: "ra m</w>",
    1856: "c at</w>",
    1935: "ag ram</w>",
    22185: "di agram</w>",
}


def test_published_clip_ids(tmp_path):
    """The ids of OpenAI's README and of transformers' tests, from a file of the published shape."""
    rare = [letter for letter in LETTER.values() if ord(letter) > 126]
    filler = ((a, b + end) for end in ("", "</w>") for a in rare for b in rare)
    merges = [tuple(PUBLISHED[i].split()) if i in PUBLISHED else next(filler) for i in range(48894)]
    extra = [("q", "q")] * 100  # the real file goes on behind the merges that the model uses
    path = write_gz(tmp_path / "vocab.txt.gz", merges + extra)
    tokenizer = make_tokenizer({"kind": "clip_bpe", "path": path})
    assert tokenizer.vocab_size == 49408
    text, mask = tokenizer.encode(["a photo of a cat", "a diagram", "a dog", ""], 8)
    np.testing.assert_array_equal(
        text,
        [
            [49406, 320, 1125, 539, 320, 2368, 49407, 0],
            [49406, 320, 22697, 49407, 0, 0, 0, 0],
            [49406, 320, 1929, 49407, 0, 0, 0, 0],
            [49406, 49407, 0, 0, 0, 0, 0, 0],
        ],
    )
    np.testing.assert_array_equal(mask.sum(1), [7, 4, 4, 2])
    assert text.dtype == np.int32 and mask.dtype == bool
