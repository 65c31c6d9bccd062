"""Any tokenizer.json."""

import pytest
from slow_bpe import word_level

from mmjax.data.text import from_file
from mmjax.data.text.library import one_error
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


class PanicException(BaseException):
    """As the library's own, which cannot be imported."""


@pytest.mark.parametrize("step", ["from_file", "encode"])
def test_a_panic_of_the_library_is_one_error(tmp_path, monkeypatch, step):
    class Backend:
        """A tokenizer of the library that panics in one step."""

        def __getattr__(self, name):
            return lambda *_: panic() if name == step else None

    def panic():
        raise PanicException("range end index 7 out of range")

    opened = panic if step == "from_file" else Backend
    monkeypatch.setattr(from_file.hf.Tokenizer, "from_file", lambda _: opened(), raising=False)
    with pytest.raises(ValueError, match="^(cannot read a|the) tokenizer .*: range end index 7"):
        from_file.open_backend(tmp_path / "tokenizer.json")


def test_what_is_no_error_of_the_library_passes():
    with pytest.raises(KeyboardInterrupt), one_error("a tokenizer"):
        raise KeyboardInterrupt
