"""A user's text files, in the encodings that editors and spreadsheets write (Python's codecs)."""

import pytest

from mmjax.data import text_file

TEXT = "кот\r\ncafé\u2028bar\nlast"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_dropped(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes(TEXT.encode(encoding))
    assert text_file.read(tmp_path / "a.txt") == TEXT
    assert text_file.decode(TEXT.encode(encoding), "a.txt") == TEXT


# "utf-16" and "utf-32" write a mark of the machine's order; the others need it written.
MARKED = {"utf-16": "", "utf-16-be": "\ufeff", "utf-32": "", "utf-32-be": "\ufeff"}


@pytest.mark.parametrize("encoding", MARKED)
def test_another_byte_order_mark_is_named(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes((MARKED[encoding] + TEXT).encode(encoding))
    wanted = rf"{path} is {encoding[:6].upper()}, by its byte order mark: save it as UTF-8"
    with pytest.raises(ValueError, match=wanted):
        text_file.read(path)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_is_not_utf_8_is_named_with_its_line(mark, end):
    before = f"{mark}кот{end}two{end}".encode()
    with pytest.raises(ValueError, match=r"a.txt, line 3, is not UTF-8 \(byte 0xe9\)"):
        text_file.decode(before + "café noir".encode("latin-1"), "a.txt")
    with pytest.raises(ValueError, match="a.txt, line 3, has a null character"):
        text_file.decode(before + b"c\0", "a.txt")


def test_lines_end_where_editors_end_them():
    assert text_file.lines(TEXT) == ["кот", "café\u2028bar", "last"]
    assert text_file.lines("a\n\nb\r\n") == ["a", "", "b"]
    assert text_file.lines("a\rb\x0bc\x85d") == ["a", "b\x0bc\x85d"]
    assert text_file.lines("") == []


@pytest.mark.parametrize("depth", [101, 5000, 10**6])
def test_deeply_nested_json_is_refused(depth):
    for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        with pytest.raises(ValueError, match="nested more than 100 deep"):
            text_file.parse_json(text)
    with pytest.raises(ValueError, match="Expecting value"):
        text_file.parse_json("[1, ]")
    assert text_file.parse_json("[" * 99 + "]" * 99)
