"""The tokenizer that a config asks for."""

import pytest
from slow_bpe import CORPUS, word_level

from mmjax.data.text.tokenizer import load_tokenizer
from mmjax.run.tokenizer import make_tokenizer


def test_saved_is_used_in_place_of_training(tmp_path):
    trained = make_tokenizer({"kind": "train_bpe", "vocab_size": 300}, corpus=CORPUS)
    trained.save(tmp_path)
    again = make_tokenizer({"kind": "train_bpe", "vocab_size": 300}, corpus=[], saved=tmp_path)
    assert again.fingerprint == trained.fingerprint
    with pytest.raises(ValueError, match="vocab_size was 300, is 500"):
        make_tokenizer({"kind": "train_bpe", "vocab_size": 500}, corpus=CORPUS, saved=tmp_path)


def test_bad_configs_name_the_mend(tmp_path):
    (tmp_path / "vocab.json").write_text("{}")
    no_end = word_level(tmp_path / "t.json", ["[PAD]"])
    for config, words in (
        ({"kind": "bpe"}, "use one of clip_bpe, file, gguf, pretrained, train_bpe"),
        ({"kind": "train_bpe", "size": 3}, "size"),
        ({"kind": "train_bpe"}, "corpus"),
        ({"kind": "train_bpe", "vocab_size": 100}, "vocab_size 100"),
        ({"kind": "clip_bpe"}, "path"),
        ({"kind": "clip_bpe", "path": str(tmp_path / "nothing.gz")}, "nothing.gz"),
        ({"kind": "clip_bpe", "path": str(tmp_path)}, "merges.txt"),
        ({"kind": "file", "path": str(tmp_path / "vocab.json")}, "vocab.json"),
        ({"kind": "file", "path": no_end}, "set eos_token"),
        ({"kind": "file", "path": no_end, "eos_token": "<end>"}, "'<end>'"),
    ):
        corpus = CORPUS if len(config) == 2 and config["kind"] == "train_bpe" else None
        with pytest.raises(ValueError, match=words):
            make_tokenizer(config, corpus=corpus)
    with pytest.raises(ValueError, match="empty"):
        make_tokenizer({"kind": "train_bpe"}, corpus=[])


def test_a_tokenizer_taken_from_another_run_reads_specials_as_that_run_did(tmp_path):
    own = make_tokenizer({"kind": "train_bpe", "vocab_size": 300}, corpus=CORPUS)
    own.origin = {"kind": "pretrained", "path": "runs/other"}
    own.save(tmp_path)
    rows = own.encode(["a <eos> b"], 24)[0]
    assert load_tokenizer(tmp_path).encode(["a <eos> b"], 24)[0].tolist() == rows.tolist()
    assert (rows == own.eos_id).sum() == 1
