"""Windows of a text and characters as tokens: nothing is lost, shifted or stripped."""

import numpy as np
import pytest

from mmjax.data.builders.shakespeare import plain
from mmjax.data.open_source import open_source
from mmjax.data.text.tokenizer import load_tokenizer
from mmjax.data.transforms import parse
from mmjax.run.tokenizer import make_tokenizer

TEXT = "  ab\n\nCa: ö<eos>, 'tis\n" * 9


@pytest.fixture(name="file")
def text_file(tmp_path):
    path = tmp_path / "plays.txt"
    path.write_text(TEXT, encoding="utf-8")
    return str(path)


def test_windows_are_every_slice_of_their_part(file):
    windows = {"kind": "text_windows", "file": file, "length": 7}
    source = open_source(windows | {"start": 0.1, "stop": 0.6})
    part = TEXT[int(0.1 * len(TEXT)) : int(0.6 * len(TEXT))]
    found = [source[i]["captions"][0] for i in range(len(source))]
    assert found == [part[i : i + 7] for i in range(len(part) - 6)]
    assert list(source.corpus) == [TEXT]
    apart = open_source(windows | {"stride": 6})
    # Each character but the first is predicted once, up to the last whole window.
    predicted = "".join(apart[i]["captions"][0][1:] for i in range(len(apart)))
    assert predicted == TEXT[1 : len(predicted) + 1] and len(TEXT) - len(predicted) - 1 < 6
    with pytest.raises(IndexError, match="not one numbered"):
        apart[len(apart)]


def test_characters_are_tokens_in_the_order_of_nanogpt(file, tmp_path):
    tokenizer = make_tokenizer({"kind": "train_characters"}, corpus=[TEXT])
    # nanoGPT's prepare.py numbers the sorted set of characters; here after three special tokens.
    numbers = {c: i + 3 for i, c in enumerate(sorted(set(TEXT)))}
    assert tokenizer.vocab_size == len(numbers) + 3
    step = parse.parse("running_text(9)", tokenizer=tokenizer)
    row = step({"captions": [TEXT[:9]]}, None)
    assert row["text"].tolist() == [numbers[c] for c in TEXT[:9]] and row["text_mask"].all()
    assert tokenizer.decode_raw(row["text"]) == TEXT[:9]
    short = step({"captions": ["\nx"]}, None)  # a character that the text does not have
    assert short["text"].tolist() == [numbers["\n"], 2, *[0] * 7]
    np.testing.assert_array_equal(short["text_mask"], np.arange(9) < 2)
    tokenizer.save(tmp_path)
    saved = load_tokenizer(tmp_path)
    assert saved.prompts(["<eos>\n"]) == [tuple(numbers[c] for c in "<eos>\n")]


def test_what_cannot_be_used_is_refused(file):
    windows = {"kind": "text_windows", "file": file, "length": 7}
    for wrong, message in (
        ({"file": "missing.txt"}, "There is no text file 'missing.txt': give one"),
        ({"stride": 0}, "length is 7 and stride 0"),
        ({"start": 0.5, "stop": 0.51}, "has no 7 characters in a row"),
        ({"stop": 1.1}, "has no 7 characters in a row"),
    ):
        with pytest.raises(ValueError, match=message):
            open_source(windows | wrong)
    with pytest.raises(ValueError, match="the corpus for the tokenizer is empty"):
        make_tokenizer({"kind": "train_characters"}, corpus=[""])


def test_a_play_loses_its_headings_and_stage_directions():
    play = (
        "# Coriolanus\n\n## ACT I\n\n### SCENE I. Rome.\n\n_Enter Citizens, with\nstaves_\n\n"
        "**First Citizen**  \nBefore we proceed,  \nhear me speak.\n\n**All**  \n"
        "_\\[To them]_  \nSpeak, '\\--speak.\n\n_Exeunt_\n"
    )
    assert plain(play) == (
        "First Citizen:\nBefore we proceed,\nhear me speak.\n\nAll:\nSpeak, '--speak.\n\n"
    )
