"""BPE dropout beside the same tokenizer without it, and beside the `tokenizers` library's."""

import numpy as np
import pytest
import tokenizers as hf
from slow_bpe import CORPUS

from mmjax.data.text.bpe_dropout import BPEDropout
from mmjax.data.text.train_bpe import train_bpe
from mmjax.data.text.train_words import train_words
from mmjax.data.transforms.parse import parse

TEXT = "the red cat and the dog, a thinking face 🎉 drawing of numbers"


def test_without_dropout_the_ids_are_the_tokenizer_s(trained, clip):
    rng = np.random.default_rng(0)
    for tokenizer in (trained, clip):
        plain = BPEDropout(tokenizer, 0.0)
        for text in [*CORPUS, TEXT, "  A Red\tCAT ", "", "ß"]:
            assert plain(text, rng) == tokenizer.prompts([text])[0][1:]


def test_dropout_is_that_of_the_tokenizers_library(trained):
    """The same distribution of the number of tokens, whose random numbers differ."""
    backend = hf.Tokenizer.from_str(trained.json())
    backend.encode_special_tokens = True
    whole, rng, draws = trained.prompts([TEXT])[0][1:], np.random.default_rng(0), 2000
    for p in (0.1, 0.5):
        backend.model.dropout = p
        ours = BPEDropout(trained, p)
        mine = [ours(TEXT, rng) for _ in range(draws)]
        theirs = [backend.encode(TEXT, add_special_tokens=False).ids for _ in range(draws)]
        lengths = [[len(ids) for ids in found] for found in (mine, theirs)]
        assert np.mean(lengths[0]) > len(whole) + 0.5
        error = (np.var(lengths[0]) / draws + np.var(lengths[1]) / draws) ** 0.5
        assert abs(np.mean(lengths[0]) - np.mean(lengths[1])) < 4 * error
        assert np.std(lengths[0]) == pytest.approx(np.std(lengths[1]), rel=0.15)
        # Each is another way to write the same text.
        assert {trained.decode(ids) for ids in mine} == {trained.decode(whole)}
        assert len(set(mine)) > 10


def test_the_step_draws_anew_and_follows_from_its_seed(trained):
    step = parse("tokenize(64, dropout=0.3)", tokenizer=trained)

    def rows(seed):
        rng = np.random.default_rng(seed)
        return np.stack([step({"caption": TEXT}, rng)["text"] for _ in range(20)])

    found = rows(0)
    assert len(np.unique(found, axis=0)) > 10
    np.testing.assert_array_equal(found, rows(0))
    made = step({"caption": TEXT}, np.random.default_rng(0))
    assert made["text"][made["text_mask"]][-1] == trained.eos_id
    evaluated = parse("tokenize(64)", tokenizer=trained)({"caption": TEXT}, None)
    assert evaluated["text_mask"].sum() < made["text_mask"].sum()


def test_what_cannot_be_dropped_is_refused(trained):
    with pytest.raises(ValueError, match="merges of a byte-level BPE"):
        BPEDropout(train_words(CORPUS), 0.1)
    with pytest.raises(ValueError, match="tokens of locations byte by byte"):
        BPEDropout(train_bpe(CORPUS, vocab_size=1400, locations=True), 0.1)
    with pytest.raises(ValueError, match="dropout=1.0"):
        BPEDropout(trained, 1.0)
    with pytest.raises(ValueError, match="choose one of the two"):
        parse("tokenize(8, words=True, dropout=0.1)", tokenizer=trained)
