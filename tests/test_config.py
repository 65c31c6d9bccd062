"""Overrides and their types, unknown keys, JSON and back."""

import json
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pytest
from ml_collections import ConfigDict
from small_config import small

from mmjax import config as configs
from mmjax.models.systems import SYSTEMS, make_system

# ---- overrides


@pytest.mark.parametrize(
    ("text", "key", "want"),
    [
        ("--config.steps=20", "steps", 20),
        ("steps=20", "steps", 20),
        ("config.steps=20", "steps", 20),
        ("--config.optim.warmup_steps=0.5", "optim.warmup_steps", 0.5),  # a count or a fraction
        ("--config.optim.b1=0.8", "optim.b1", 0.8),  # not in the file
        ("--config.model.image.remat=full", "model.image.remat", "full"),
        ("--config.model.text.depth=3", "model.text.depth", 3),
        ("--config.evals.mine.kind=retrieval", "evals.mine.kind", "retrieval"),
        ("--config.rate=3e-4", "rate", 3e-4),
        ("--config.rate=1", "rate", 1.0),
        ("--config.flag=True", "flag", True),
        ("--config.flag=true", "flag", True),
        ("--config.clip=1.5", "clip", 1.5),
        ("--config.clip=some words", "clip", "some words"),
        ("--config.rate=None", "rate", None),
        ("--config.sizes=(3, 4, 5)", "sizes", (3, 4, 5)),
        ("--config.sizes=[3]", "sizes", (3,)),
        ("--config.name=b", "name", "b"),
        ("--config.name=12", "name", "12"),  # a string stays one
        ("--config.name=a=b", "name", "a=b"),
        ("--config.name=none", "name", "none"),  # a word, such as a kind of remat
        ("--config.name=None", "name", None),
        ("--config.model.image.pool=map", "model.image.pool", "map"),
        ("--config.model.width=8", "model.width", 8),
    ],
)
def test_override_sets_a_value_of_the_right_type(text, key, want):
    config = configs.override(small(), [text])
    for part in key.split("."):
        config = config[part]
    assert config == want
    assert type(config) is type(want)


@pytest.mark.parametrize(
    "text",
    [
        "--config.steps=many",
        "--config.steps=6.5",
        "--config.steps=6.0",
        "--config.steps=True",
        "--config.rate=fast",
        "--config.flag=1",
        "--config.sizes=3",
        "--config.model=3",
    ],
)
def test_override_of_another_type_names_key_type_and_value(text):
    key, value = text.removeprefix("--").split("=")
    with pytest.raises(ValueError) as error:
        configs.override(small(), [text])
    old = small()[key.removeprefix("config.")]
    assert key in str(error.value)
    assert f"'{value}'" in str(error.value)
    assert type(old).__name__ in str(error.value)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("--config.step=1", "steps"),
        ("--config.modle.width=1", "model"),
    ],
)
def test_override_of_an_unknown_key_names_the_nearest(text, nearest):
    with pytest.raises(ValueError, match=f"Did you mean '{nearest}'"):
        configs.override(small(), [text])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("batch_size=0", "config.batch_size is 0: use a whole number from 1 on"),
        ("microbatches=-1", "config.microbatches is -1: use a whole number from 1 on"),
        ("total_steps=None", "config.total_steps is None: use a whole number from 1 on"),
        ("log_every=0", "config.log_every is 0: use a whole number from 1 on"),
        ("seed=-1", "config.seed is -1: use a whole number from 0 on"),
        ("checkpoint.every=0", "config.checkpoint.every is 0: use a whole number from 1 on"),
        ("batch_size=64.0", "config.batch_size is a int.*cannot be set to '64.0'"),
        ("seed=1.5", "config.seed is a int.*cannot be set to '1.5'"),
        ("seed=True", "config.seed is a int.*cannot be set to 'True'"),
        ("checkpoint.evry=1", "config.checkpoint has no key 'evry'. Did you mean 'every'"),
        ("data.trian.kind=folder", "config.data has no key 'trian'. Did you mean 'train'"),
    ],
)
def test_counts_are_whole_numbers_in_their_range(text, words):
    with pytest.raises(ValueError, match=words):
        configs.override(configs.defaults(), [text])


def test_a_wrong_count_of_a_file_is_refused_when_it_is_loaded(tmp_path):
    path = write(
        tmp_path / "mine.py",
        "    config = defaults()\n    config.batch_size = 0\n    return config\n",
    )
    with pytest.raises(ValueError, match="config.batch_size is 0"):
        configs.load(path)


def target(
    count: int,
    rate: float = 0.1,
    size: int | tuple[int, int] = 3,
    name: str | None = None,
    flag: bool = False,
    words: Sequence[str] = (),
    sizes: tuple[int, ...] = (),
    inner: Mapping[str, Any] = types.MappingProxyType({}),
    kind: Literal["a", "b"] = "a",
    anything=None,
):
    """Takes settings of every type that a config can hold."""


@pytest.mark.parametrize(
    "good",
    [
        {"count": 3},
        {"count": np.int64(3)},
        {"rate": 1},
        {"rate": np.float32(1.5)},
        {"size": (1, 2)},
        {"size": [1, 2]},
        {"name": None},
        {"flag": True},
        {"words": ["a", "b"]},
        {"sizes": (1, 2, 3)},
        {"sizes": ()},
        {"inner": {"a": 1}},
        {"inner": ConfigDict({"a": 1})},
        {"kind": "b"},
        {"anything": object()},
    ],
)
def test_settings_of_the_annotated_type_pass(good):
    assert configs.check_kwargs(target, good, "config.it") == good


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"count": 2.0}, "config.it.count is 2.0: it must be of type int"),
        ({"count": True}, "config.it.count is True: it must be of type int"),
        ({"rate": "fast"}, "rate is 'fast': it must be of type float"),
        ({"rate": True}, "rate is True"),
        ({"size": (1, 2, 3)}, r"size is \(1, 2, 3\): it must be of type int | tuple\[int, int\]"),
        ({"size": (1, 2.5)}, "size is"),
        ({"name": 3}, r"name is 3: it must be of type str \| None"),
        ({"flag": 1}, "flag is 1: it must be of type bool"),
        ({"sizes": 3}, r"sizes is 3: it must be of type tuple\[int, ...\]"),
        ({"inner": 3}, r"inner is 3: it must be of type Mapping\[str, Any\]"),
        ({"kind": "c"}, "kind is 'c'"),
        ({"cuont": 3}, "config.it.cuont is not a setting of target. Did you mean 'count'"),
    ],
)
def test_settings_of_another_type_or_name_are_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        configs.check_kwargs(target, bad, "config.it")


def test_override_below_a_leaf_and_without_equals():
    with pytest.raises(ValueError, match="config.steps has no key 'x'"):
        configs.override(small(), ["--config.steps.x=1"])
    with pytest.raises(ValueError, match="has no '='"):
        configs.override(small(), ["--config.steps"])


def test_overrides_apply_in_order_and_lock():
    config = configs.override(small(), ["steps=1", "steps=2"])
    assert config.steps == 2
    with pytest.raises(KeyError):
        config["new_key"] = 1
    with pytest.raises(KeyError):
        config.model["new_key"] = 1


def test_override_wins_over_a_field_reference():
    """As the vocabulary of clip_emoji, which tokenizer and model share."""
    config = small()
    config.model.width = config.get_ref("steps")
    assert configs.override(config, ["steps=7"]).model.width == 7


# ---- files


def write(path, body):
    path.write_text("from mmjax.config import defaults\n\n\ndef get_config():\n" + body)
    return str(path)


def test_load_names_locks_and_overrides(tmp_path):
    path = write(tmp_path / "mine.py", "    config = defaults()\n    return config\n")
    config = configs.load(path, ["--config.optim={'learning_rate': 0.5}", "--config.seed=3"])
    assert (config.name, config.seed, config.optim.learning_rate) == ("mine", 3, 0.5)
    assert config.is_locked
    assert set(config) == set(configs.defaults())


def test_load_of_an_unknown_section_names_the_nearest(tmp_path):
    body = "    config = defaults()\n    config.optimm = {}\n    return config\n"
    with pytest.raises(ValueError, match=r"mine.py sets config.optimm.*Did you mean 'optim'"):
        configs.load(write(tmp_path / "mine.py", body))


def test_load_of_no_file_or_no_get_config(tmp_path):
    write(tmp_path / "mine.py", "    return defaults()\n")
    with pytest.raises(ValueError, match=r"no config file.*Did you mean '.*mine\.py'"):
        configs.load(str(tmp_path / "mime.py"))
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match="get_config"):
        configs.load(str(tmp_path / "empty.py"))


# ---- check_kwargs


def build(width, depth=2, *, pool="cls"):
    return width, depth, pool


def test_check_kwargs_gives_plain_values():
    section = ConfigDict({"width": 4, "pool": "map"})
    kwargs = configs.check_kwargs(build, section, "config.model")
    assert type(kwargs) is dict
    assert build(**kwargs) == (4, 2, "map")
    nested = configs.check_kwargs(build, ConfigDict({"pool": {"a": {"b": 1}}}), "x")
    assert type(nested["pool"]["a"]) is dict


def test_check_kwargs_names_place_and_nearest():
    with pytest.raises(ValueError) as error:
        configs.check_kwargs(build, {"widht": 4}, "config.model.image")
    assert "config.model.image.widht" in str(error.value)
    assert "Did you mean 'width'" in str(error.value)
    assert "width, depth, pool" in str(error.value)


# ---- settings of older versions


def test_the_ema_decay_of_an_old_run_is_read_as_config_ema():
    old = json.loads(configs.to_json(configs.defaults()))
    del old["ema"]
    for decay in (0.0, 0.999):
        config = configs.from_json(json.dumps(old | {"ema_decay": decay}))
        assert config.ema.to_dict() == {"decay": decay, "teacher": False, "evaluate": True}
        assert "ema_decay" not in config
        assert configs.from_json(configs.to_json(config)) == config
    assert configs.from_json(json.dumps(old)).ema.to_dict() == configs.defaults().ema.to_dict()


def test_an_old_name_in_a_file_or_an_override_is_refused_with_the_new_one(tmp_path):
    with pytest.raises(ValueError, match=r"'--config.ema_decay=0.9': it is now --config.ema.decay"):
        configs.override(configs.defaults(), ["--config.ema_decay=0.9"])
    file = tmp_path / "old.py"
    lines = ("config = defaults()", "config.ema_decay = 0.9", "return config")
    body = "".join(f"    {line}\n" for line in lines)
    file.write_text(f"from mmjax.config import defaults\n\ndef get_config():\n{body}")
    with pytest.raises(ValueError, match=r"old.py sets config.ema_decay, which is now config.ema"):
        configs.load(str(file))


def test_schedules_are_taken_where_a_number_is_the_default():
    config = configs.override(configs.defaults(), ["--config.ema.decay=((0, 0.9), (100, 0.99))"])
    assert config.ema.decay == ((0, 0.9), (100, 0.99))
    assert configs.from_json(configs.to_json(config)).ema.decay == config.ema.decay
    assert configs.override(config, ["--config.ema.decay=0.98"]).ema.decay == 0.98
    config = configs.override(configs.defaults(), ["--config.loss={'alpha': ((0, 0.0), (9, 0.4))}"])
    assert configs.override(config, ["--config.loss.alpha=0.4"]).loss.alpha == 0.4
    with pytest.raises(ValueError, match="config.validation is a tuple .* cannot be set"):
        configs.override(configs.defaults(), ["--config.validation=1"])
    with pytest.raises(ValueError, match="config.log_every is a int .* cannot be set"):
        configs.override(configs.defaults(), ["--config.log_every=((0, 1), (5, 2))"])


@pytest.mark.parametrize("old", [1.0, "balanced", ((0, 1.0), (9, 2.0))])
@pytest.mark.parametrize("new", [2, "sqrt", ((0, 0.0), (5, 1.0))])
def test_a_weight_of_a_mixture_is_a_number_a_schedule_or_a_word(old, new):
    config = configs.defaults()
    config.data.train = {"kind": "mixture", "parts": {"x": {"weight": old}}}
    configs.override(config, [f"--config.data.train.parts.x.weight={new}"])
    assert config.data.train.parts.x.weight == new


def test_a_section_with_fixed_keys_keeps_the_defaults_that_are_not_given(tmp_path):
    file = tmp_path / "c.py"
    code = "from mmjax.config import defaults\ndef get_config():\n    c = defaults()\n    {}\n"
    code += "    return c\n"
    file.write_text(code.format("c.ema = {'decay': 0.9, 'teacher': True}"))
    config = configs.load(str(file), ())
    assert config.ema.to_dict() == {"decay": 0.9, "teacher": True, "evaluate": True}
    config = configs.load(str(file), ["--config.ema={'decay': 0.5}"])
    assert config.ema.to_dict() == {"decay": 0.5, "teacher": False, "evaluate": True}
    file.write_text(code.format("c.ema = {'decay': 0.9, 'teachr': True}"))
    with pytest.raises(ValueError, match="config.ema has no key 'teachr'. Did you mean 'teacher'"):
        configs.load(str(file), ())


def test_plugins_are_imported_and_a_missing_one_is_named(tmp_path, monkeypatch):
    (tmp_path / "my_plugin.py").write_text(
        "from mmjax.models.systems import SYSTEMS\nSYSTEMS['mine'] = lambda c: c['model']\n"
    )
    (tmp_path / "broken_plugin.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    body = "    config = defaults()\n    config.plugins = ('my_plugin',)\n    return config\n"
    config = configs.load(write(tmp_path / "mine.py", body))
    assert make_system({"model": {"name": "mine", "width": 3}}) == {"width": 3}
    del SYSTEMS["mine"], sys.modules["my_plugin"]
    configs.from_json(configs.to_json(config))  # as evaluation reads it from a checkpoint
    assert SYSTEMS.pop("mine")
    with pytest.raises(ValueError, match="config.plugins names 'my_plugim', and there is no such"):
        configs.load(str(tmp_path / "mine.py"), ["plugins=('my_plugim',)"])
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        configs.load(str(tmp_path / "mine.py"), ["plugins=('broken_plugin',)"])
