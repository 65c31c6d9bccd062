"""Configs as JSON, and the differences of two."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from small_config import small

from mmjax import config as configs
from mmjax.workdir import resume_config

KEYS = st.text("abcdefgh_", min_size=1, max_size=4)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
)
TUPLES = st.recursive(SCALARS, lambda s: st.lists(s, max_size=3).map(tuple), max_leaves=4)
TREES = st.recursive(
    st.dictionaries(KEYS, TUPLES, max_size=3),
    lambda s: st.dictionaries(KEYS, s | TUPLES, max_size=3),
    max_leaves=6,
)


def typed(value):
    """The value with the type of every part, since 1 == 1.0 == True."""
    if isinstance(value, dict):
        return {k: typed(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(map(typed, value))
    return type(value).__name__, value


@settings(max_examples=60)
@given(TREES)
def test_json_round_trip(tree):
    tree = configs.defaults().to_dict() | {"model": tree}
    text = configs.to_json(ConfigDict(tree))
    back = configs.from_json(text)
    assert typed(back.to_dict()) == typed(tree)
    assert back.is_locked
    assert configs.to_json(back) == text
    assert resume_config.diff(ConfigDict(tree), back) == {}


def test_what_an_older_config_lacks_has_its_default():
    old = {"seed": 3, "lora": {}, "model": {"width": 2}, "checkpoint": {"every": 7}, "gone": 1}
    found = configs.from_json(json.dumps(old))
    default = configs.defaults().to_dict()
    changed = {"seed": 3, "gone": 1, "model": {"width": 2}}
    changed["checkpoint"] = {"every": 7, "keep": default["checkpoint"]["keep"]}
    assert found.to_dict() == default | changed


def test_json_is_the_same_for_equal_configs_and_resolves_references():
    a, b = ConfigDict({"x": 1, "y": 2}), ConfigDict({"y": 2, "x": 1})
    assert configs.to_json(a) == configs.to_json(b)
    config = small()
    config.model.width = config.get_ref("steps")
    assert json.loads(configs.to_json(config))["model"]["width"] == 10
    with pytest.raises(TypeError, match="object"):
        configs.to_json(ConfigDict({"x": object()}))


def flat(tree, prefix=()):
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    return {k: v for key, sub in tree.items() for k, v in flat(sub, (*prefix, key)).items()}


def as_json(value):
    return json.loads(json.dumps(value))


@settings(max_examples=60)
@given(TREES, TREES)
def test_diff_is_what_a_walk_over_both_finds(old, new):
    a, b = flat(as_json(old)), flat(as_json(new))
    want = {}
    for path in {*a, *b}:
        if a.get(path) != b.get(path):
            want[".".join(path)] = (a.get(path), b.get(path))
    assert resume_config.diff(ConfigDict(old), ConfigDict(new)) == want


def test_diff_by_hand():
    new = configs.override(small(), ["steps=11", "model.image.pool=map"])
    new.unlock()
    new.evals = {"a": {"k": 1}}
    assert resume_config.diff(small(), new) == {
        "steps": (10, 11),
        "model.image.pool": ("cls", "map"),
        "evals": ({}, None),
        "evals.a.k": (None, 1),
    }
