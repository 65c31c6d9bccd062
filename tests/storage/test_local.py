"""Files written whole, whatever the text."""

import json
from concurrent.futures import ThreadPoolExecutor

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


def test_threads_that_write_the_same_file_do_not_take_its_parts_from_each_other(tmp_path):
    contents = {str(i) * 1000 for i in range(8)}
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            list(pool.map(lambda x: storage.write(tmp_path / "a", x), contents))
            assert (tmp_path / "a").read_text() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
