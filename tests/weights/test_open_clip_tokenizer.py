"""open_clip's text cleaning: strings and ids of open_clip 3.3, tests/golden/make_tokenizers.py."""

import hashlib
import json
import shutil

import pytest
from parity import GOLDEN

from mmjax.data.text import clip_vocab
from mmjax.weights import open_clip_tokenizer, tokenizer

FILES = GOLDEN / "tokenizers"
WANT = json.loads((FILES / "cases.json").read_text())
DIRTY = WANT["dirty"]


@pytest.fixture
def folder(tmp_path):
    """CLIP's vocabulary."""
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(FILES / f"clip_{name}", tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("kind", WANT["cleaned"])
def test_cleaned_texts(kind):
    clean = open_clip_tokenizer.CLEANERS[kind]
    assert [clean(text) for text in DIRTY] == WANT["cleaned"][kind]


@pytest.mark.parametrize("kind", WANT["clip_ids"])
def test_ids_of_texts_that_need_cleaning(folder, kind, tmp_path_factory):
    settings = {} if kind == "lower" else {"tokenizer_kwargs": {"clean": kind}}
    words = open_clip_tokenizer.read(folder, settings)
    # open_clip's own tokenizer lowercases nothing but by its cleaning; CLIP's vocabulary has no
    # capitals, and ours, as that of transformers, lowercases after it.
    if kind != "whitespace":
        assert [list(row[1:]) for row in words.prompts(DIRTY)] == WANT["clip_ids"][kind]
    saved = tmp_path_factory.mktemp("saved")
    tokenizer.write(saved, words, 80)
    again = open_clip_tokenizer.read(saved, open_clip_tokenizer.settings(words, masked=False))
    assert again.prompts(DIRTY) == words.prompts(DIRTY)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tokenizer_kwargs": {"clean": "lowr"}}, "clean 'lowr'; these can be loaded: lower"),
        ({"tokenizer_kwargs": {"strip_sep_token": True}}, "kwargs.strip_sep_token, which changes"),
        ({"tokenizer_mode": "clips"}, "tokenizer_mode, which changes the tokens"),
    ],
)
def test_what_is_refused(folder, settings, words):
    with pytest.raises(ValueError, match=words):
        open_clip_tokenizer.read(folder, settings)


def test_cleaning_survives_in_the_layout_of_transformers(folder, tmp_path_factory):
    before = tokenizer.read(folder)
    assert [list(row[1:]) for row in before.prompts(DIRTY)] == WANT["clip_ids"]["lower"]
    saved = tmp_path_factory.mktemp("saved")
    tokenizer.write(saved, before, 80)
    assert tokenizer.read(saved).prompts(DIRTY) == before.prompts(DIRTY)


@pytest.mark.parametrize(("masked", "pad"), [(True, "<|endoftext|>"), (False, "!")])
def test_a_padding_token_that_texts_use_is_saved_only_where_the_model_reads_it(
    folder, masked, pad, tmp_path_factory
):
    """transformers 5.23 takes the padding token for a special one inside texts too."""
    words = open_clip_tokenizer.read(folder, {})
    assert words.pad_id == 0
    saved = tmp_path_factory.mktemp("saved")
    tokenizer.write(saved, words, 80, masked=masked)
    assert json.loads((saved / tokenizer.SETTINGS).read_text())["pad_token"] == pad
    texts = ["wow!", "a ! b"]
    assert tokenizer.read(saved).prompts(texts) == words.prompts(texts)


def test_open_clip_reads_its_own_vocabulary_with_its_own_tokenizer(folder, monkeypatch):
    """It has the published one in its package, pads with 0 and cleans by "lower"."""
    words = open_clip_tokenizer.read(folder, {})
    assert open_clip_tokenizer.settings(words, masked=True) == {
        "hf_tokenizer_name": ".",
        "tokenizer_kwargs": {"clean": "lower"},
    }
    vocab = json.loads((folder / "vocab.json").read_text())
    tokens = "\n".join(sorted(vocab, key=vocab.get)).encode()
    monkeypatch.setattr(clip_vocab, "_PUBLISHED", hashlib.sha256(tokens).hexdigest())
    assert open_clip_tokenizer.settings(words, masked=True) == {}
    assert open_clip_tokenizer.settings(words, masked=False) == {}
    words.pad_id = words.eos_id
    assert open_clip_tokenizer.settings(words, masked=True) == {}
    assert "hf_tokenizer_name" in open_clip_tokenizer.settings(words, masked=False)
