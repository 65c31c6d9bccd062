"""Files written whole, whatever the text."""

import json

import pytest

from mmjax import storage
from mmjax.workdir import jsonl


def test_text_that_cannot_be_encoded_is_escaped(tmp_path):
    text = "caf\udce9 \u2028 ü"
    storage.write(tmp_path / "a.html", text)
    assert (tmp_path / "a.html").read_bytes() == "caf\\udce9 \u2028 ü".encode()
    storage.write(tmp_path / "a.json", json.dumps([text], ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text()) == [text]


@pytest.mark.parametrize("text", ["a\nb", "\x85", "\u2028", "\ud83d", "\udce9", '"\\', "ü本☃"])
def test_a_value_is_one_line_of_json(text):
    line = jsonl.line({"key": text})
    assert json.loads(line) == {"key": text} and len(line.splitlines()) == 1
    line.encode()
