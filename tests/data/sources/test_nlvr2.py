"""NLVR2's files and folders, as its README describes them."""

import json

import pytest

from mmjax.data.open_source import open_source

URLS = {"left_url": "https://a/0.jpg", "right_url": "https://a/1.jpg", "synset": "acorn"}


def line(identifier, label="True", **more):
    sentence = f"The sentence {identifier[-1]}\u2028 of it."
    return {"identifier": identifier, "sentence": sentence, "label": label, **URLS, **more}


def written(tmp_path, lines, images):
    (tmp_path / "dev.json").write_text(
        "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines)
    )
    for name in images:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return {"kind": "nlvr2", "annotations": str(tmp_path / "dev.json"), "images": str(tmp_path)}


def both(path):
    return [f"{path}-img0.png", f"{path}-img1.png"]


def test_examples_of_every_folder_layout(tmp_path):
    lines = [
        line("dev-0-0-0"),
        line("dev-0-1-0", "False"),
        line("dev-0-1-1"),
        line("train-7-3-1", directory=13),
        line("train-8-0-0", "false", directory=2),
    ]
    images = both("dev-0-0") + both("dev/dev-0-1") + both("images/train/13/train-7-3")
    source = open_source(written(tmp_path, lines, images + both("train/2/train-8-0")))
    assert len(source) == 5 and source.class_names == ["false", "true"]
    examples = [source[i] for i in range(5)]
    assert [x["label"] for x in examples] == [1, 0, 1, 1, 0]
    assert [x["captions"] for x in examples] == [[x["sentence"]] for x in lines]
    assert examples[1]["image"] == (b"dev/dev-0-1-img0.png", b"dev/dev-0-1-img1.png")
    assert examples[3]["image"][1] == b"images/train/13/train-7-3-img1.png"
    # The official consistency leaves out the number of the pair.
    ids = ["dev-0-0", "dev-0-0", "dev-0-1", "train-7-1", "train-8-0"]
    assert [x["sentence_id"] for x in examples] == ids
    assert source.meta(2) == {k: v for k, v in examples[2].items() if k != "image"}


def test_missing_images_are_one_error_or_left_out(tmp_path):
    lines = [line("dev-0-0-0"), line("dev-0-1-0"), line("dev-0-2-0")]
    config = written(tmp_path, lines, both("dev-0-0") + ["dev-0-1-img0.png"])
    with pytest.raises(
        ValueError,
        match=r"2 bad records of 3.*2 records whose file is missing; the first is "
        r"'dev-0-1-0' \(no dev-0-1-img0.png and -img1.png in .*dev\)",
    ):
        open_source(config)
    source = open_source(config | {"max_bad_records": 2})
    assert [source.meta(i)["key"] for i in range(len(source))] == ["dev-0-0-0"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is empty"),
        ([{"sentence": "x"}], "Line 1 of .* has no identifier, label: is this a file of NLVR2"),
        ([[]], "Line 1 of .* has no identifier, sentence, label"),
        ([line("dev-0-0-0", "maybe")], "has the label 'maybe': it is 'True' or 'False'"),
        ([line("../a-0-0-0")], "has the identifier '../a-0-0-0', SPLIT-SET-PAIR-SENTENCE"),
        ([line("..-0-0-0")], "has the identifier '..-0-0-0', SPLIT-SET-PAIR-SENTENCE"),
        ([line("train-0-0-0", directory="../..")], "has the directory '../..', a number in NLVR2"),
        ([line("dev-0-0-0", sentence=[1])], r"has the sentence \[1\]: it must be text"),
        ([line("dev-0-0")], "has the identifier 'dev-0-0', SPLIT-SET-PAIR-SENTENCE in NLVR2"),
    ],
)
def test_other_files_are_refused(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        open_source(written(tmp_path, lines, both("dev-0-0")))


def test_missing_paths_are_refused(tmp_path):
    config = written(tmp_path, [line("dev-0-0-0")], both("dev-0-0"))
    with pytest.raises(ValueError, match="There is no file .*nope"):
        open_source(config | {"annotations": str(tmp_path / "nope")})
    with pytest.raises(ValueError, match="There is no folder .*nope"):
        open_source(config | {"images": str(tmp_path / "nope")})
    (tmp_path / "dev.json").write_text("[1,\n")
    with pytest.raises(ValueError, match="Line 1 of .* is no JSON"):
        open_source(config)
