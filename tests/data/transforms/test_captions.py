"""Which caption is chosen, how often, and what templates make of it."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmjax.data.transforms import captions
from mmjax.data.transforms.parse import parse

EXAMPLE = {
    "captions": ["red apple", "apple"],
    "languages": ["de", "fr", "de"],
    "names": ["Apfel", "pomme", "roter Apfel"],
    "label": 1,
}


def draws(spec, example=EXAMPLE, n=2000, **context):
    transform, rng = parse(spec, **context), np.random.default_rng(0)
    return Counter(transform(example, rng)["caption"] for _ in range(n))


def assert_shares(counts, expected):
    """Each share within 5 standard deviations of the expected one, and nothing else drawn."""
    n = sum(counts.values())
    assert set(counts) == set(expected)
    for caption, share in expected.items():
        assert abs(counts[caption] / n - share) < 5 * np.sqrt(share * (1 - share) / n) + 1e-9


def test_captions_are_drawn_evenly():
    assert_shares(draws("choose_caption"), {"red apple": 0.5, "apple": 0.5})


def test_templates_are_drawn_with_their_probability():
    counts = draws("choose_caption(['a {}', 'my {}'], template_p=0.4)")
    own = dict.fromkeys(EXAMPLE["captions"], 0.3)
    framed = {f"{t} {name}": 0.1 for t in ("a", "my") for name in EXAMPLE["captions"]}
    assert_shares(counts, own | framed)


def test_names_in_other_languages():
    counts = draws("choose_caption('plain', p_extra=0.3)")
    names = dict.fromkeys(EXAMPLE["names"], 0.1)
    assert_shares(counts, {"red apple": 0.35, "apple": 0.35} | names)
    counts = draws("choose_caption(languages=['fr'], p_extra=0.3)")
    assert_shares(counts, {"red apple": 0.35, "apple": 0.35, "pomme": 0.3})
    counts = draws("choose_caption(languages=['it'], p_extra=0.3)")
    assert_shares(counts, {"red apple": 0.5, "apple": 0.5})


def test_foreign_names_take_no_english_template():
    assert "a pomme" not in draws("choose_caption(['a {}'], p_extra=0.5)")


def test_first_caption():
    assert draws("first_caption", n=5) == {"red apple": 5}
    assert draws("first_caption('a drawing of {}')", n=5) == {"a drawing of red apple": 5}


def test_class_name_where_there_is_no_caption():
    assert draws("first_caption", {"label": 1}, 3, class_names=["cat", "dog"]) == {"dog": 3}
    assert draws("choose_caption", {"label": 0}, 3, class_names=["cat", "dog"]) == {"cat": 3}
    with pytest.raises(ValueError, match="'img7' has no captions"):
        draws("first_caption", {"captions": [" "], "key": "img7"}, 1)


def test_bytes_are_decoded():
    example = {"captions": [b"caf\xc3\xa9"], "languages": [b"de"], "names": [b"Kaffee"]}
    assert draws("choose_caption('plain', 1.0, ['de'], 1.0)", example, 5) == {"Kaffee": 5}
    assert draws("first_caption", example, 1) == {"café": 1}


@given(st.text())
def test_names_are_put_in_whole(name):
    assert captions.fill("a {} b", name) == "a " + name + " b"


@pytest.mark.parametrize("preset", captions.TEMPLATES)
def test_presets(preset):
    templates = captions.get_templates(preset)
    prompts = captions.prompt_ensemble("zebra", preset)
    assert len(prompts) == len(set(prompts)) == len(templates)
    for template, prompt in zip(templates, prompts):
        before, after = template.split("{}")
        assert prompt == before + "zebra" + after


def test_clip_subset_is_the_published_one():
    """The seven of OpenAI's notebook Prompt_Engineering_for_ImageNet."""
    assert set(captions.prompt_ensemble("dog", "clip_7")) == {
        "itap of a dog.",
        "a bad photo of the dog.",
        "a origami dog.",
        "a photo of the large dog.",
        "a dog in a video game.",
        "art of the dog.",
        "a photo of the small dog.",
    }


def test_bad_templates():
    for bad, words in (("fotos", "use one of plain"), (["a dog"], "'a dog'"), ([], "empty")):
        with pytest.raises(ValueError, match=words):
            captions.get_templates(bad)
