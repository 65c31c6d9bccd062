"""NaN and infinity are refused wherever a user sets a number."""

import dataclasses
import math
import re
import sys
import types
import typing

import pytest

from mmjax import config as configs
from mmjax.data.transforms.chain import read
from mmjax.decode.settings import Settings as Decoding
from mmjax.guide import guide
from mmjax.losses.contrastive import contrastive_loss
from mmjax.masks.automatic import Settings as Masks
from mmjax.models.dalle_sampling import Sampling
from mmjax.number import check_finite
from mmjax.optim.optimizer import Settings as Optimizer
from mmjax.process import command
from mmjax.sample.settings import Settings as Sampler
from mmjax.schedule import check_schedule
from mmjax.speech.fallback import Thresholds

# What a user makes, and what it needs.
DIRECT = ((Decoding, {"max_new_tokens": 3}), (Sampler, {}), (Thresholds, {}), (Masks, {}))
# What is made from a section of settings.
SECTIONS = ((Optimizer, {"learning_rate": 1.0}), (Sampling, {}), (contrastive_loss, {}))


def make(target, settings):
    made = target(**settings)
    if hasattr(made, "check"):
        made.check()


def takes_float(hint):
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return hint is float or union and float in typing.get_args(hint)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_float_of_any_settings_is_nan_or_infinite(bad):
    for target, needs in DIRECT:
        make(target, needs)
        names = [f.name for f in dataclasses.fields(target) if "float" in str(f.type)]
        assert names
        for name in names:
            value = (0.0, bad) if "tuple" in str(getattr(target, name).__class__) else bad
            with pytest.raises(ValueError, match=rf"\.{name}.* is {bad}: use a finite"):
                make(target, {**needs, name: value})
    for target, needs in SECTIONS:
        configs.check_kwargs(target, needs, "config.x")
        hints = typing.get_type_hints(target)
        for name in [n for n, hint in hints.items() if takes_float(hint) and n != "return"]:
            with pytest.raises(ValueError, match=rf"config.x.{name} is {bad}: use a finite"):
                configs.check_kwargs(target, {**needs, name: bad}, "config.x")
    settings = {"clip": "unused", "clip_guidance": bad}
    with pytest.raises(ValueError, match=f"sample.clip_guidance is {bad}: use a finite"):
        guide(settings, None)
    with pytest.raises(ValueError, match=f"config.y is {bad}|config.y.* is {bad}"):
        check_schedule(((0, 1.0), (5, bad)), "config.y")


def test_a_config_is_checked_as_a_whole_and_a_limit_may_be_infinite(tmp_path):
    file = tmp_path / "c.py"
    text = (
        "from mmjax import config\n\ndef get_config():\n    c = config.defaults()\n    {}\n"
        "    return c\n"
    )
    for line, where in (
        ("c.data.train = {'parts': ({'weight': 1e999},)}", r"config.data.train.parts\[0\].weight"),
        ("c.lora.alpha = float('nan')", "config.lora.alpha"),
        ("c.early_stopping.min_delta = float('nan')", "config.early_stopping.min_delta"),
    ):
        file.write_text(text.format(line))
        with pytest.raises(ValueError, match=rf"^{where} is (nan|inf): use a finite number\.$"):
            configs.load(str(file))
    file.write_text(text.format("c.model.logit_scale_max = float('inf')"))
    with pytest.raises(ValueError, match="config.loss_weights.contrastive is inf"):
        configs.load(str(file), ["--config.loss_weights.contrastive=1e999"])
    with pytest.raises(ValueError, match="config.model.logit_scale_max is nan"):
        check_finite({"logit_scale_max": math.nan}, "config.model")


def test_arguments_of_transforms_are_finite():
    for bad in ("flip(1e999)", "random_resized_crop(8, scale=(0.5, -1e999))"):
        with pytest.raises(ValueError, match=re.escape("an argument of '" + bad[:6])):
            read(f"decode | {bad}")


@pytest.mark.parametrize(
    ("flag", "words"),
    [("--scale=nan", "--scale is nan"), ("--scale=-inf", "--scale is -inf")]
    + [(f"--seed={seed}", f"--seed is {seed}") for seed in (-1, 2**32)],
)
def test_flags_are_finite_and_a_seed_has_32_bits(flag, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mmjax", flag])
    monkeypatch.setattr(command.runtime, "prepare", lambda: None)
    with pytest.raises(SystemExit):
        command.start("", ("--scale", {"type": float}), ("--seed", {"type": int, "default": 0}))
    assert words in capsys.readouterr().err
