"""Any tokenizer.json."""

from slow_bpe import word_level

from mmjax.run.tokenizer import make_tokenizer


def test_any_tokenizer_file(tmp_path):
    path = word_level(tmp_path / "tokenizer.json", ["[PAD]", "[CLS]", "[SEP]"])
    tokenizer = make_tokenizer({"kind": "file", "path": path})
    text, mask = tokenizer.encode(["red cat"], 6)
    assert text.tolist() == [[1, 4, 5, 2, 0, 0]] and mask.sum() == 4
    own = make_tokenizer({"kind": "file", "path": path, "eos_token": "cat", "pad_token": "red"})
    assert (own.pad_id, own.eos_id) == (4, 5)


def test_a_file_without_begin_token(tmp_path):
    path = word_level(tmp_path / "t.json", ["</s>"])
    tokenizer = make_tokenizer({"kind": "file", "path": path})
    text, mask = tokenizer.encode(["red cat", "red"], 3)
    assert tokenizer.bos_id is None
    assert text.tolist() == [[2, 3, 0], [2, 0, 0]] and mask.sum(1).tolist() == [3, 2]
