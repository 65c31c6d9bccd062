"""Experiment configs: defaults, loading, typed overrides, unknown-key errors."""

import ast
import difflib
import importlib
import importlib.util
import inspect
import json
import numbers
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FieldReference

from mmjax.number import check_finite

# Numbers that may also be ((step, value), ...); see mmjax/schedule.py.
_SCHEDULES = re.compile(r"config\.(ema\.decay|loss_weights\..*|optim\.learning_rate)")
_WEIGHTS = re.compile(r"config\.data\.train\.parts\..*\.weight")  # or a word, such as "balanced"
# Sections whose keys are the settings of what they describe, which checks them (`check_kwargs`).
_OPEN = re.compile(r"(model|loss|loss_weights|optim|tokenizer|evals|data\.train)(\..*)?")
# Whole numbers, and their minimum.
_COUNTS = {
    "seed": 0,
    "batch_size": 1,
    "microbatches": 1,
    "total_steps": 1,
    "log_every": 1,
    "profile.start": 2,  # the first step compiles
    "profile.steps": 0,
    "eval_every": 0,
    "data.num_threads": 1,
    "data.num_workers": 0,
    "checkpoint.every": 1,
    "checkpoint.keep": 1,
    "early_stopping.patience": 1,
}
# Sections whose keys are fixed: those that a config leaves out have their defaults.
_FIXED = ("ema", "lora", "profile", "track", "checkpoint", "early_stopping", "init_from", "data")
_COUNT_OR_FRACTION = ("config.data.max_lost_records",)


def defaults() -> ConfigDict:
    """The settings that every experiment has; a config file fills in the rest.

    The dict is unlocked: `load` locks it once `get_config` has returned.
    """
    return ConfigDict(
        {
            "name": "",
            # modules that are imported first, to add systems, evaluators, sources to mmjax's tables
            "plugins": (),
            "seed": 0,
            "batch_size": 256,  # global: over all devices and processes
            "microbatches": 1,  # > 1: exact gradient accumulation, embeddings cached
            "total_steps": 1000,
            "model": {},
            "loss": {},
            "loss_weights": {},
            "optim": {},
            # low-rank additions to the kernels whose paths match; see mmjax/optim/lora.py
            "lora": {"rank": 8, "alpha": 16.0, "targets": ()},
            # moving average of the parameters: decay (0: none; a schedule, see mmjax/schedule.py);
            # teacher: its outputs reach the loss; evaluate: evaluators and exports use it
            "ema": {
                "decay": FieldReference(0.0, field_type=object),
                "teacher": False,
                "evaluate": True,
            },
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
            "tokenizer": {},
            "data": {
                "train": {},
                # fraction of the training source that is only evaluated: see mmjax/run/hold_out.py
                "hold_out": 0.0,
                "cached_transform": "",  # deterministic first steps; results are kept in memory
                "transform": "",
                "batch_transform": "",
                "num_threads": 2,
                "num_workers": 0,  # > 0: processes that make the rows in place of the threads
                # files that may vanish during a run: a count, or a fraction (float) of the source
                "max_lost_records": 0,
            },
            "evals": {},
            "eval_every": 0,  # steps; 0: only at the end
            "evals_at_start": (),  # names in evals: also run before the first step, to compare
            "validation": (),  # names in evals: run every eval_every steps
            "early_stopping": {"metric": "", "patience": 5, "mode": "max", "min_delta": 0.0},
            "baselines": "",  # JSON with results -> baseline -> evaluation, shown in the report
            "log_every": 10,
            # also log to "wandb" or "trackio", in this project; see mmjax/workdir/trackers.py
            "track": {"kind": "", "project": "mmjax"},
            # trace this many steps, from step `start` on; see mmjax/plan/profile.py
            "profile": {"start": 50, "steps": 0},
            "checkpoint": {"every": 500, "keep": 2},
            "step_timeout_seconds": 1800,  # a step that takes longer ends the run; 0: never
            # initial parameters: a run's workdir or a published folder, and which paths to take
            # from it; a language model for `text`: a published folder, a GGUF file or a workdir
            "init_from": {"path": "", "only": (), "language_model": ""},
        }
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """The question " Did you mean '...'?"; empty if no known name is close."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def check_kwargs(target: Callable, kwargs: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A config section as keyword arguments of `target` (a function or a dataclass).

    Args:
      target: what will be called with them.
      kwargs: the section.
      where: the section's place in the config, for the message ("config.model.image").

    Raises:
      ValueError: a key that `target` does not take (the message names the nearest one), or a value
        that is not of the annotated type, or not finite.
    """
    kwargs = kwargs.to_dict() if isinstance(kwargs, ConfigDict) else dict(kwargs)
    parameters = inspect.signature(target).parameters
    own = ("parent", "name") if "parent" in parameters else ()  # Linen's, of every module
    known = {
        p.name: p.annotation
        for p in parameters.values()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in own
    }
    for key, value in kwargs.items():
        if key not in known:
            raise ValueError(
                f"{where}.{key} is not a setting of {target.__name__}.{nearest(key, known)} "
                f"It takes: {', '.join(known)}."
            )
        check_type(value, known[key], f"{where}.{key}")
        check_finite(value, f"{where}.{key}")
    return kwargs


def check_type(value: Any, annotation: Any, where: str) -> None:
    """Check a value of the config against the annotation of what takes it.

    Only what a config can hold is checked: numbers, strings, tuples, dicts and None. An int passes
    for a float, and a list for a tuple; a bool or a float does not pass for an int.

    Raises:
      ValueError: another type.
    """
    if not _fits(value, annotation):
        name = getattr(annotation, "__name__", "")
        plain = isinstance(annotation, type) and not typing.get_args(annotation)
        wanted = name if plain else re.sub(r"(\w+\.)+", "", str(annotation))
        raise ValueError(f"{where} is {value!r}: it must be of type {wanted}.")


def _fits(value: Any, annotation: Any) -> bool:
    kind, inner = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if kind in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if kind is typing.Literal:
        return value in inner
    if kind in (None, type(None)):
        return value is None
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    if kind in (str, bool):
        return isinstance(value, kind)
    if kind in (tuple, list):
        if not isinstance(value, tuple | list):
            return False
        if not inner:
            return True
        each = inner[:1] * len(value) if inner[-1] is ... or kind is list else inner
        return len(each) == len(value) and all(map(_fits, value, each))
    if kind in (Sequence, Iterable):
        return isinstance(value, Iterable)
    if kind in (Mapping, dict):
        return hasattr(value, "items")
    return True


def load(path: str, overrides: Iterable[str] = ()) -> ConfigDict:
    """The locked config of a file's `get_config()`, with overrides applied.

    Args:
      path: a Python file that defines `get_config() -> ConfigDict`. What follows a colon, as in
        "configs/mine.py:WORD", is passed to it: `get_config("WORD")`.
      overrides: strings "--config.optim.learning_rate=1e-3" (the dashes and "config." optional).

    Raises:
      ValueError: no such file, no `get_config`, an unknown key, a value of the wrong type, or no
        such plugin.
    """
    name, colon, argument = path.partition(":")
    file = Path(name)
    if not file.is_file():
        nearby = sorted(str(p) for p in file.parent.glob("*.py")) if file.parent.is_dir() else []
        raise ValueError(f"There is no config file '{name}'.{nearest(str(file), nearby)}")
    module_spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path} defines no function get_config().")
    takes = inspect.signature(module.get_config).parameters
    if bool(colon) != bool(takes):
        raise ValueError(
            f"{name} takes {'an argument' if takes else 'no argument'} after a colon: "
            f"--config={name}" + (f":{next(iter(takes)).upper()}." if takes else ".")
        )
    config = module.get_config(argument) if colon else module.get_config()
    config.name = config.name or file.stem
    known = set(defaults())
    for key in config:
        if key == "ema_decay":
            raise ValueError(f"{path} sets config.ema_decay, which is now config.ema.decay.")
        if key not in known:
            raise ValueError(f"{path} sets config.{key}, unknown to mmjax.{nearest(key, known)}")
    _complete(config)
    return _with_plugins(override(config, overrides))


def _with_plugins(config: ConfigDict) -> ConfigDict:
    for name in config.get("plugins", ()):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:  # the plugin is there, and something that it needs is not
                raise
            raise ValueError(
                f"config.plugins names '{name}', and there is no such module: start from the "
                "folder that it is in, or put that on PYTHONPATH."
            ) from None
    return config


def _complete(config: ConfigDict) -> None:
    """Give sections with fixed keys the defaults of those that they lack, in place.

    Raises:
      ValueError: a key that such a section does not have.
    """
    every = defaults()
    with config.unlocked():
        for section in _FIXED:
            if section not in config:
                continue
            known, given = every[section], config[section]
            for key in given:
                if key not in known:
                    raise ValueError(
                        f"config.{section} has no key '{key}'.{nearest(key, known)} It has: "
                        f"{', '.join(known)}."
                    )
            for key in set(known) - set(given):
                given[key] = known[key]


def override(config: ConfigDict, overrides: Iterable[str]) -> ConfigDict:
    """The config, locked, with "--config.key=value" strings applied to it in place.

    In a section that describes an object (a model, a loss, an evaluator ...) any key can be set;
    an unknown one is refused when that object is made.

    Raises:
      ValueError: an unknown key, or a value of the wrong type or out of range.
    """
    config.lock()
    for text in overrides:
        _apply(config, text)
    check_numbers(config)
    return config


def check_numbers(config: ConfigDict) -> None:
    """Check that all numbers are finite, and the ranges of those that must be whole.

    Raises:
      ValueError: names the setting, its value and its minimum.
    """
    check_finite(config, "config")
    for key, least in _COUNTS.items():
        section, _, name = key.rpartition(".")
        settings = config.get(section, {}) if section else config
        if name not in settings:
            continue
        value = settings[name]
        if not _fits(value, int) or value < least:
            raise ValueError(f"config.{key} is {value!r}: use a whole number from {least} on.")


def _apply(config: ConfigDict, override: str) -> None:
    key, equals, text = override.lstrip("-").removeprefix("config.").partition("=")
    if not equals:
        raise ValueError(f"The override '{override}' has no '=': write --config.some.key=value.")
    if key == "ema_decay":
        raise ValueError(f"The override '{override}': it is now --config.ema.decay.")
    *parents, last = key.split(".")
    section = config
    for depth, part in enumerate([*parents, last]):
        here = ".".join(["config", *parents[:depth]])
        new = not isinstance(section, ConfigDict) or part not in section
        if new and (not isinstance(section, ConfigDict) or not _OPEN.fullmatch(here[7:])):
            known = section if isinstance(section, ConfigDict) else ()
            raise ValueError(
                f"The override '{override}': {here} has no key '{part}'.{nearest(part, known)}"
            )
        if depth < len(parents):
            if new:
                with section.unlocked():
                    section[part] = ConfigDict()
            section = section[part]
    value = _typed(text, section.get(last), f"config.{key}")
    with section.unlocked(), section.ignore_type():  # `_typed` has checked it
        section[last] = value
    config.lock()
    _complete(config)


def _typed(text: str, old: Any, where: str) -> Any:
    """`text` as a value of the type of `old` (None: whatever Python literal it is)."""
    weight = _WEIGHTS.fullmatch(where)
    if isinstance(old, str) and not weight:
        return None if text == "None" else text  # "none" stays a string, such as remat's
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    if old is None or value is None or weight:
        return value
    if isinstance(value, tuple | list) and _SCHEDULES.fullmatch(where):
        return tuple(value)
    # A number for a schedule, or where what an open section describes may take both.
    takes_both = _SCHEDULES.fullmatch(where) or _OPEN.fullmatch(where[7:])
    if takes_both and isinstance(old, tuple | list) and isinstance(value, int | float):
        return value
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    counts = isinstance(old, int) and not isinstance(old, bool)
    # Such as warmup_steps=0.1; in an open section, what it describes checks the type.
    either = where in _COUNT_OR_FRACTION or _OPEN.fullmatch(where[7:])
    if counts and isinstance(value, float) and either:
        return value
    if isinstance(old, tuple | list) and isinstance(value, tuple | list):
        return tuple(value)
    if isinstance(old, ConfigDict) and isinstance(value, dict):
        return ConfigDict(value)
    if type(value) is not type(old):
        raise ValueError(
            f"{where} is a {type(old).__name__} (now {old!r}) and cannot be set to '{text}'."
        )
    return value


def to_json(config: ConfigDict) -> str:
    """The resolved config as JSON text, the same for equal configs."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, ConfigDict):
        return value.to_dict()
    raise TypeError(f"A config holds numbers, strings, tuples and dicts, not {type(value)}.")


def from_json(text: str) -> ConfigDict:
    """The locked config that `to_json` wrote (tuples come back as tuples).

    A setting that did not exist yet when it was written gets its default.
    """
    given = _tuples(json.loads(text))
    if "ema_decay" in given:  # until version 2 of the contracts
        given["ema"] = {"decay": given.pop("ema_decay")}
    return _with_plugins(ConfigDict(_filled(defaults().to_dict(), given)).lock())


def _filled(value: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`value` updated with `given`, recursively."""
    both = {
        key: _filled(value[key], new)
        for key, new in given.items()
        if isinstance(new, dict) and isinstance(value.get(key), dict)
    }
    return {**value, **given, **both}


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    return value
