"""A folder of recordings and a file of their texts."""

import json

import pytest
from digits import wav

from mmjax.data.open_source import open_source


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two recordings, and a third that a file of texts may name."""
    monkeypatch.setenv("MMJAX_DATA_DIR", str(tmp_path / "cache"))
    root = tmp_path / "speech"
    (root / "clips").mkdir(parents=True)
    for name in ("a", "b"):
        (root / "clips" / f"{name}.wav").write_bytes(wav([1, 2, 3]))
    return root


def opened(root, **settings):
    return open_source({"kind": "recordings", "root": root, **settings})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", 'file_name,transcription\nclips/a.wav,"one, two"\nclips/b.wav,three\n'),
        ("captions.tsv", "path\tsentence\nclips/a.wav\tone, two\nclips/b.wav\tthree\n"),
        (
            "captions.jsonl",
            '{"audio_filepath": "clips/a.wav", "text": "one, two"}\n'
            '{"audio_filepath": "clips/b.wav", "text": "three"}\n',
        ),
    ],
)
def test_layouts_of_the_texts(folder, name, text):
    """Of Hugging Face's audiofolder, Common Voice and NeMo."""
    (folder / name).write_text(text)
    source = opened(folder)
    assert [source.meta(i) for i in range(len(source))] == [
        {"key": "clips/a.wav", "captions": ["one, two"]},
        {"key": "clips/b.wav", "captions": ["three"]},
    ]
    assert source[1] == {**source.meta(1), "audio": wav([1, 2, 3])}
    assert source.class_names is None and source.name == str(folder)


def test_what_is_missing(folder):
    with pytest.raises(ValueError, match="no file with the texts of its recordings"):
        opened(folder)
    with pytest.raises(ValueError, match="There is no folder"):
        opened(folder / "other")
    rows = [{"sound": f"clips/{x}.wav", "said": x} for x in "abc"]
    (folder / "said.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {"captions": "said.jsonl", "audio_column": "sound", "caption_column": "said"}
    with pytest.raises(ValueError, match="1 .*missing"):
        opened(folder, **columns)
    source = opened(folder, **columns, max_bad_records=1)
    assert [source.meta(i)["captions"] for i in range(len(source))] == [["a"], ["b"]]
    (folder / "said.jsonl").write_text(json.dumps(rows[2]))
    with pytest.raises(ValueError, match="lists no recording that is there"):
        opened(folder, **columns, max_bad_records=1)


def test_recordings_that_do_not_fit(folder):
    (folder / "clips" / "c.wav").write_bytes(wav([0] * 16_000))
    (folder / "clips" / "d.wav").write_bytes(b"")
    rows = [{"file_name": f"clips/{x}.wav", "text": x} for x in "abcd"]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match="1 recordings that are too long.*1 unreadable"):
        opened(folder, longest=0.5)
    assert len(opened(folder, longest=0.5, max_bad_records=2)) == 2
    assert len(opened(folder)) == 4
    with pytest.raises(ValueError, match="no audio column 'file'; .*: set audio_column"):
        opened(folder, audio_column="file")
