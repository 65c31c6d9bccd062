"""The page of what a model is given, of batches that are made here."""

import numpy as np
import pytest

from mmjax.config import defaults, override
from mmjax.data.inspect import inspect
from mmjax.data.transforms.patch_steps import row_of
from mmjax.report import batch_page


class Words:
    """A tokenizer whose token i is the i-th letter; 25 ends a text."""

    eos_id = 25

    def decode(self, ids):
        return "".join(chr(ord("a") + i) for i in ids if i != self.eos_id)


@pytest.fixture
def batch():
    image = np.full((3, 8, 8, 3), 200, np.uint8)
    boxes = np.zeros((3, 2, 4), np.float32)
    boxes[0, 0] = (0, 0, 0.5, 1)
    ramp = np.tile(np.arange(4, dtype=np.float32)[:, None], (3, 1, 2))  # [B, F, M], rising
    return {
        "image": image,
        "image_present": np.array([True, True, False]),
        "boxes": boxes,
        "boxes_mask": np.array([[True, False], [False, False], [False, False]]),
        "box_label": np.array([[1, -1], [-1, -1], [-1, -1]], np.int32),
        "text": np.array([[2, 0, 25, 3, 25, 0], [1, 1, 25, 0, 0, 0], [0] * 6], np.int32),
        "text_mask": np.arange(6) < np.array([[5], [3], [0]]),
        "text_loss_mask": np.arange(6) == np.array([[3], [6], [6]]),
        "text_present": np.array([True, True, False]),
        "audio": ramp,
        "audio_mask": np.tile(np.array([True, True, True, False]), (3, 1)),
        "audio_present": np.array([False, True, True]),
        "video": np.full((3, 5, 4, 6, 3), 100, np.uint8),
        "video_mask": np.tile(np.arange(5) < 3, (3, 1)),
        "video_present": np.array([False, False, True]),
        "label": np.array([0, -1, 7], np.int32),
        "part": np.array([0, 1, 1], np.int32),
        "example_id": np.array([4, 9, 2]),
    }


def test_what_a_row_says(batch):
    names = ["cat", "dog"]
    said = [batch_page.words_of(batch, row, Words(), names) for row in range(3)]
    assert said[0] == [
        "ca | d · 5 of 6 tokens · in the loss: d",
        "label: cat (0)",
        "boxes: dog (1)",
    ]
    assert said[1] == ["bb · 3 of 6 tokens · in the loss: nothing", "boxes: none"]
    assert said[2] == ["label: 7", "boxes: none"]
    assert batch_page.words_of(batch, 1, None, None)[0].startswith("1 1 25 · 3 of 6")
    queries = {"text": batch["text"][None], "text_mask": batch["text_mask"][None]}
    assert batch_page.words_of(queries, 0, Words(), None) == [
        "ca | d · 5 of 6 tokens",
        "bb · 3 of 6 tokens",
    ]
    mixed = {"label_probs": np.array([[0.25, 0.75, 0.0]])}
    assert batch_page.words_of(mixed, 0, None, names) == ["dog (1) 75%, cat (0) 25%"]


def test_what_a_row_shows(batch):
    (first,) = batch_page.images_of(batch, 0)
    assert first.shape == (320, 320, 3)
    framed = (first != 200).any(-1)  # the box, in the left half alone
    assert framed[:, :160].any() and not framed[:, 165:].any()
    _, sound = batch_page.images_of(batch, 1)
    assert sound.shape == (2, 4, 3)  # frequencies by frames
    np.testing.assert_array_equal(sound[0, :, 0], [0, 128, 255, 0])  # the last is padding
    film, _ = batch_page.images_of(batch, 2)
    assert film.shape == (8, 24, 3)
    np.testing.assert_array_equal(film[0, ::6, 0], [100, 100, 100, 25])
    several = {"image": np.stack([batch["image"]] * 2, 1), "image_mask": np.eye(3, 2, dtype=bool)}
    several["image_size"] = np.full((3, 2, 2), (4, 6), np.int32)
    shapes = [[x.shape for x in batch_page.images_of(several, row)] for row in range(3)]
    assert shapes == [[(4, 6, 3)], [(4, 6, 3)], []]


def test_rows_of_patches_are_shown_as_images():
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    row = row_of(image, 4, 7)
    batch = {name: np.stack([x, 0 * x]) for name, x in row.items()}
    batch["image_present"] = np.array([True, False])
    (shown,) = batch_page.images_of(batch, 0)
    np.testing.assert_array_equal(shown, image)
    assert batch_page.images_of(batch, 1) == []
    packed = {"image": row["image"][None], "image_grid": np.array([[[2, 2], [0, 0], [1, 2]]])}
    (shown,) = batch_page.images_of(packed, 0)
    assert shown.shape == (8, 8 + 8, 3) and (shown[4:, 8:] == 255).all()
    (found,) = batch_page.arrays(
        [{"image": np.zeros((2, 4, 12))}, {"image": np.ones((6, 4, 8))}], {}
    )
    assert found["shape"] == "[2, 4, 12] or [6, 4, 8]" and found["mean"] == f"{192 / 288:.4g}"


def test_numbers_of_batches(batch, tmp_path):
    other = {**batch, "image": batch["image"] // 2}
    other["audio"] = np.where(batch["audio"] == 3, np.nan, batch["audio"])
    rows = {row["array"]: row for row in batch_page.arrays([batch, other], {"image": None})}
    assert rows["image"] == {
        "array": "image",
        "dtype": "uint8",
        "shape": "[3, 8, 8, 3]",
        "range": "100 to 200",
        "mean": "150",
        "not finite": "",
        "bytes an example": "192",
        "read by the model": "yes",
    }
    assert rows["video_mask"]["mean"] == "60.0% true" and rows["audio"]["not finite"] == "6"
    counts = batch_page.modalities([batch, other])
    assert [list(row.values()) for row in counts] == [
        ["image", "4", "2", "66.7%"],
        ["text", "4", "2", "66.7%"],
        ["audio", "4", "2", "66.7%"],
        ["video", "2", "4", "33.3%"],
    ]
    parts = batch_page.part_counts([batch, other], ("a", "b", "c"))
    assert [(row["part"], row["rows"]) for row in parts] == [("a", "2"), ("b", "4"), ("c", "0")]
    path = tmp_path / "page.html"
    batch_page.write_batch_page(
        path, "<T>", {}, [batch], {}, shown=2, key_of="k{}".format, tokenizer=Words(), parts="ab"
    )
    page = path.read_text()
    assert page.count("<article>") == 2 and "9 · k9 · part b · without video" in page
    assert "&lt;T&gt;" in page and "ca | d" in page


def test_the_command(tmp_path, capsys):
    from tiny_clip import get_config, write_folder

    captions = write_folder(tmp_path / "images")
    config = get_config()
    config.data.train.root = str(tmp_path / "images")
    config.name = "tiny"
    config = override(config, [])
    inspect(config, tmp_path / "page.html", step=2, seconds=0.1)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<article>") == 8 and "examples/s by 2 threads" in page
    assert sum(caption.rpartition(",")[0] in page for caption in captions)
    said = capsys.readouterr().out
    assert "Batch: step 2: all 8 rows" in said and "[8, 16, 16, 3]" in said
    config = override(config, ["model.image.image_size=(24,24)", "batch_size=24"])
    with pytest.raises(
        ValueError, match="'image' is uint8.16, 16, 3. per example, and config.model"
    ):
        inspect(config, tmp_path / "page.html", seconds=0.0)
    with pytest.raises(ValueError, match="--step is 0"):
        inspect(defaults(), tmp_path / "page.html", step=0)


def test_the_command_on_parts_of_other_batch_sizes(tmp_path, capsys, monkeypatch):
    """More rows than are made, of which the smaller part allows halves alone."""
    from tiny_clip import get_config, write_folder

    monkeypatch.setattr("mmjax.data.inspect.MOST_ROWS", 3)
    write_folder(tmp_path / "images")
    config = get_config()
    parts = {"few": {"batch_size": 6}, "many": {}}
    source = {**config.data.train, "root": str(tmp_path / "images")}
    for part in parts.values():
        part.update(source=source, transform="decode")
    config.data.train = {"kind": "mixture", "whole_batches": True, "parts": parts}
    config.data.transform = "choose_caption | tokenize(12)"
    config = override(config, [])
    for step in (1, 2):
        inspect(config, tmp_path / "page.html", step=step, seconds=0.0)
    said = capsys.readouterr().out
    assert "step 1: the first 3 of 6 rows" in said and "step 2: the first 4 of 8 rows" in said
