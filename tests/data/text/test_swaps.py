"""Swapped captions: one thing differs, and pairs of captions of each other form groups."""

import collections

import numpy as np
import pytest

from mmjax.data.source import Source
from mmjax.data.sources.caption_swaps import open_caption_swaps
from mmjax.data.sources.scene_relations import open_scene_relations
from mmjax.data.sources.scenes import open_scenes
from mmjax.data.text.swaps import COLORS, TONES, alternatives
from mmjax.data.transforms import parse

DARK, LIGHT = "dark skin tone", "medium-light skin tone"


def test_each_kind_exchanges_its_words_alone():
    assert alternatives("red heart") == {"color": [f"{c} heart" for c in COLORS if c != "red"]}
    found = alternatives("woman astronaut: dark skin tone")
    assert found["gender"] == ["man astronaut: dark skin tone"]
    assert found["skin_tone"] == [f"woman astronaut: {t} skin tone" for t in TONES if t != "dark"]
    assert alternatives("right arrow curving left")["direction"] == ["left arrow curving right"]
    found = alternatives(f"kiss: {LIGHT}, {DARK}")
    assert found["tone_order"] == [f"kiss: {DARK}, {LIGHT}"] and "skin_tone" not in found
    assert "tone_order" not in alternatives(f"kiss: {DARK}, {DARK}")
    assert alternatives("grinning") == {} == alternatives("flower redness")
    assert "color" not in alternatives("red and white flag") and "gender" not in alternatives(
        "woman and man"
    )
    (shuffled,) = alternatives("person in suit levitating")["word_order"]
    assert shuffled != "person in suit levitating"
    assert collections.Counter(shuffled.split()) == collections.Counter(
        ["person", "in", "suit", "levitating"]
    )
    for caption in ("red heart", f"kiss: {LIGHT}, {DARK}", "woman in red car"):
        assert all(text != caption for texts in alternatives(caption).values() for text in texts)


class Named(Source):
    """Images with these captions."""

    name, class_names = "named", None

    def __init__(self, *captions):
        self.captions = captions

    def __len__(self):
        return len(self.captions)

    def __getitem__(self, i):
        return {"image": np.full((2, 2, 3), i, np.uint8), "captions": [self.captions[i], "other"]}


def test_images_whose_captions_are_swaps_of_each_other_are_a_group():
    names = ("red heart", "grinning", "black heart", "man cook", "woman cook", "red heart")
    source = open_caption_swaps(Named(*names))
    rows = [source.meta(i) for i in range(len(source))]
    assert [r["captions"] for r in rows] == [[n] for n in ("red heart", "black heart", *names[3:5])]
    assert [r["swap_kind"] for r in rows] == ["color", "color", "gender", "gender"]
    # The only other hearts of the source.
    assert [r["swapped_captions"] for r in rows][:2] == [["black heart"], ["red heart"]]
    groups = [r["group"] for r in rows]
    assert groups[0] == groups[1] != groups[2] == groups[3] and all(groups)
    assert source[1]["image"][0, 0, 0] == 2
    alone = open_caption_swaps(Named("red heart", "man cook"), kinds=("color",))
    assert len(alone) == 1 and alone.meta(0)["group"] == ""
    with pytest.raises(ValueError, match="No caption of named can be swapped by color"):
        open_caption_swaps(Named("grinning"), kinds=("color",))


class Cutouts(Source):
    """Squares of four colors, each with its label."""

    name, class_names = "cutouts", ["red", "green", "blue", "gray"]
    colors = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128))

    def __len__(self):
        return 4

    def __getitem__(self, i):
        image = np.full((8, 8, 4), 255, np.uint8)
        image[..., :3] = self.colors[i]
        return {"image": image, "label": i, "captions": [self.class_names[i]]}


def test_a_relation_is_true_in_its_scene_and_swapped_in_the_mirrored_one():
    scenes = open_scenes(Cutouts(), 12, size=48, per_scene=(2, 3), scale=(0.2, 0.2))
    source = open_scene_relations(scenes)
    assert len(source) == 24
    for i in range(len(source)):
        example = source[i]
        words = example["captions"][0].split(" to the left of ")
        assert example["swapped_captions"] == [" to the left of ".join(words[::-1])]
        assert example["group"] == str(i // 2) and example["swap_kind"] == "relation"
        at = []
        for word in words:
            color = Cutouts.colors[Cutouts.class_names.index(word)]
            near = np.abs(example["image"].astype(int) - color).max(-1) < 3
            at.append(np.nonzero(near)[1].mean())
        assert at[0] < at[1]
    assert source[1]["captions"] == source[0]["swapped_captions"]
    with pytest.raises(ValueError, match="is not of kind 'scenes'"):
        open_scene_relations(Cutouts())
    with pytest.raises(IndexError, match="has 24 examples, not one numbered 24"):
        source[24]
    single = open_scenes(Cutouts(), 12, size=48, per_scene=(1, 2), scale=(0.2, 0.2))
    assert any(len(single[i]["regions"]) == 1 for i in range(12))
    mixed = open_scene_relations(single)
    assert all("to the left of" in mixed.meta(i)["captions"][0] for i in range(24))
    with pytest.raises(ValueError, match="No scene of .* has two objects of different names"):
        open_scene_relations(open_scenes(Cutouts(), 3, size=48, per_scene=(1, 1)))[0]


class Doubled(Cutouts):
    """Two of the squares have the same name."""

    def __getitem__(self, i):
        return {**super().__getitem__(i), "label": max(0, i - 1)}


def test_a_name_that_a_scene_has_twice_is_not_asked_about():
    scenes = open_scenes(Doubled(), 40, size=48, per_scene=(3, 3), scale=(0.2, 0.2))
    source = open_scene_relations(scenes)
    asked = 0
    for scene in range(40):
        names = [Doubled.class_names[label] for label in scenes[scene]["regions"].labels]
        pair = source._pair(scene, scenes[scene]["regions"])
        asked += pair is not None
        assert pair is None or all(names.count(name) == 1 for name in pair)
    assert 5 < asked < 40


class Words:
    """A tokenizer of one id per text, which notes the texts."""

    pad_id = 0

    def __init__(self):
        self.seen = []

    def rows(self, texts, length):
        self.seen += texts
        row = np.arange(length) < 2
        return np.ones((1, length), np.int32), row[None], np.zeros(1, bool)


def test_the_step_takes_the_examples_own_swaps_or_makes_them():
    tokenizer = Words()
    step = parse.parse("first_caption | hard_negative(5)", tokenizer=tokenizer)
    rng = np.random.default_rng(0)
    for _ in range(20):
        made = step({"captions": ["red heart"]}, rng)
    assert made["text_negative"].shape == (5,) and made["text_negative_mask"].sum() == 2
    assert set(tokenizer.seen) <= set(alternatives("red heart")["color"])
    assert len(set(tokenizer.seen)) > 3
    step({"captions": ["a b"], "swapped_captions": ["b a"]}, rng)
    assert tokenizer.seen[-1] == "b a"
    none = step({"captions": ["grinning"]}, rng)
    assert not none["text_negative_mask"].any() and not none["text_negative"].any()
    with pytest.raises(ValueError, match="hard_negative comes after choose_caption"):
        parse.parse("hard_negative(5)", tokenizer=tokenizer)({"captions": ["a"]}, rng)
