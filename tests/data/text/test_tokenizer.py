"""Rows of ids, and tokenizers saved and loaded."""

import threading

import numpy as np
import pytest
import tokenizers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_bpe import ALPHABET, CORPUS, encode_one

from mmjax.data.text.tokenizer import Tokenizer, load_tokenizer
from mmjax.run.tokenizer import make_tokenizer


@settings(max_examples=60)
@given(texts=st.lists(st.text(ALPHABET, max_size=30), max_size=6), length=st.integers(3, 40))
def test_rows(trained, texts, length):
    """bos, tokens, eos, padding; the mask is true up to the end token, which is never cut."""
    trained.reset_truncation_rate()
    text, mask = trained.encode(texts, length)
    assert text.shape == mask.shape == (len(texts), length)
    cut = 0
    for row, row_mask, caption in zip(text, mask, texts):
        whole = encode_one(trained, caption)
        n = row_mask.sum()
        assert row_mask[:n].all() and not row_mask[n:].any()
        assert n == min(len(whole), length)
        assert row[:n].tolist() == whole[: n - 1] + [trained.eos_id]
        assert (row[n:] == trained.pad_id).all()
        cut += len(whole) > length
    expected = cut / (2 * len(texts)) if texts else 0.0  # encode_one cuts none
    assert trained.truncation_rate == pytest.approx(expected)


def test_strict_raises_on_a_long_text():
    config = {"kind": "train_bpe", "vocab_size": 300, "strict": True}
    tokenizer = make_tokenizer(config, corpus=CORPUS)
    tokenizer.encode(["a cat"], 20)
    with pytest.raises(ValueError, match="raise the length"):
        tokenizer.encode(["a cat", CORPUS[0]], 6)


def test_truncation_rate_counts_every_thread(trained):
    trained.reset_truncation_rate()

    def work(i):
        for k in range(100):
            trained.encode([f"{i} {k}", "the cat and the dog and the bird " * 3], 12)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trained.truncation_rate == 0.5


def test_lengths_without_room_and_single_strings_are_refused(trained):
    with pytest.raises(ValueError, match="length of 2"):
        trained.encode(["a"], 2)
    with pytest.raises(ValueError, match="list of texts"):
        trained.encode("a cat", 8)


@pytest.mark.parametrize("text", ["a smile \ud83d", "caf\udce9"])  # half an emoji; Latin-1
def test_a_text_that_is_not_unicode_is_refused(trained, text):
    for texts in ([text], ["a cat", text]):
        with pytest.raises(
            ValueError, match=r"the text '.*\\ud.*' has bytes that are not UTF-8, or"
        ):
            trained.encode(texts, 8)


def test_save_and_load(trained, clip, tmp_path):
    for i, tokenizer in enumerate((trained, clip)):
        folder = tmp_path / str(i)
        tokenizer.save(folder)
        again = load_tokenizer(folder)
        assert again.fingerprint == tokenizer.fingerprint
        texts = [*CORPUS, "&amp; “new” <eos> <|endoftext|>"]
        for a, b in zip(again.encode(texts, 30), tokenizer.encode(texts, 30)):
            np.testing.assert_array_equal(a, b)


def test_fingerprints_differ(trained, clip):
    other = make_tokenizer({"kind": "train_bpe", "vocab_size": 299}, corpus=CORPUS)
    assert len({trained.fingerprint, clip.fingerprint, other.fingerprint}) == 3


def test_load_refuses_files_that_do_not_belong_together(trained, tmp_path):
    trained.save(tmp_path / "a")
    make_tokenizer({"kind": "train_bpe", "vocab_size": 290}, corpus=CORPUS).save(tmp_path / "b")
    (tmp_path / "a/tokenizer.json").write_bytes((tmp_path / "b/tokenizer.json").read_bytes())
    with pytest.raises(ValueError, match="do not belong together"):
        load_tokenizer(tmp_path / "a")
    (tmp_path / "b/tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        load_tokenizer(tmp_path / "b")
    with pytest.raises(ValueError, match="no saved tokenizer"):
        load_tokenizer(tmp_path / "c")


def test_scores_that_json_rounds_do_not_stop_a_load(tmp_path):
    scores = (-0.10490011715303971, -1.2654214710460525, -12.376456098880187)
    pieces = [("</s>", 0.0), *((f"piece{x}", x) for x in scores)]
    backend = hf.Tokenizer(hf.models.Unigram(pieces, unk_id=0))
    assert hf.Tokenizer.from_str(backend.to_str()).to_str() != backend.to_str()
    first = Tokenizer(backend, pad_id=0, bos_id=None, eos_id=0)
    first.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert again.fingerprint == first.fingerprint
    again.save(tmp_path / "twice")
    assert load_tokenizer(tmp_path / "twice").fingerprint == first.fingerprint
