"""A vocabulary of whole words."""

import pytest

from mmjax.data.text.tokenizer import load_tokenizer
from mmjax.run.tokenizer import make_tokenizer

CONFIG = {"kind": "train_words", "vocab_size": 6}
CORPUS = ["one two", "Two  two three", "one <eos>"]


def test_the_most_frequent_words_are_tokens(tmp_path):
    tokenizer = make_tokenizer(CONFIG, corpus=CORPUS)
    assert tokenizer.vocab_size == 6
    text, mask = tokenizer.encode(["ONE two", "three <eos>"], 5)
    assert text.tolist() == [[1, 5, 4, 2, 0], [1, 3, 3, 2, 0]]
    assert mask.sum(1).tolist() == [4, 4]
    assert tokenizer.decode(text[0]) == "one two"
    tokenizer.save(tmp_path)
    saved = load_tokenizer(tmp_path)
    assert saved.fingerprint == tokenizer.fingerprint
    assert saved.encode(["two <eos>"], 4)[0].tolist() == [[1, 4, 3, 2]]


def test_what_has_no_words_is_refused():
    with pytest.raises(ValueError, match="vocab_size 4 holds no word beside 4 special"):
        make_tokenizer({**CONFIG, "vocab_size": 4}, corpus=CORPUS)
    with pytest.raises(ValueError, match="the corpus for the tokenizer is empty"):
        make_tokenizer(CONFIG, corpus=[" "])
    with pytest.raises(ValueError, match="kind 'train_words' needs the corpus"):
        make_tokenizer(CONFIG)
