"""Mixtures: several sources with their own transforms, sampled by weights that may change.

    config.data.train = {"kind": "mixture", "parts": {
        "photos": {"source": {...}, "transform": "decode | resize(64)", "weight": 3.0},
        "texts": {"source": {...}, "transform": "first_caption", "weight": ((0, 0.0), (1000, 1.0))},
    }}
    config.data.transform = "tokenize(32)"  # for every part, after the part's own transform

A weight is a number, a schedule (see `mmjax.schedule`; 0 leaves a part out), or one word for all
parts, which samples every combination of modalities
    "balanced"      equally often,
    "sqrt"          in proportion to the square root of its number of examples,
    "proportional"  in proportion to that number,
and the parts that have the same combination in proportion to their size. Parts are numbered in the
alphabetical order of their names; `order.py` has the order of the examples. Mixtures express
curricula, balanced sampling and the gradual addition of a modality.

With "whole_batches": True each step takes its rows from one part, and weights are fractions of the
steps. So parts may give arrays of different lengths, each of which is compiled once, such as patch
budgets of NaFlex or lengths of texts, and have a "batch_size" each, at most config.batch_size: rows
by a budget of tokens. Parts of the same source go through it together. With
    "parts": {"128": {"transform": "decode | patches(128, 16)", "batch_size": 64, "source": S},
              "512": {"transform": "decode | patches(512, 16)", "batch_size": 16, "source": S}}
every step has 8,192 patches, and every example of S is in one batch of an epoch.
"""

import dataclasses
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.config import nearest
from mmjax.data import open_source as sources
from mmjax.data.class_names import widest
from mmjax.data.held_out import held_out
from mmjax.data.mixture_weights import WORDS, resolved
from mmjax.data.order import PLAIN, MixtureOrder, WholeBatches, check_weights
from mmjax.data.source import Source
from mmjax.data.sources.joined import Joined
from mmjax.data.sources.memory import InMemory
from mmjax.data.sources.renumbered import renumbered as renumbered_source
from mmjax.data.transforms import chain
from mmjax.data.transforms.parse import parse
from mmjax.schedule import is_number

Transform = Callable[[dict, np.random.Generator], dict]
History = list[tuple[int, dict[str, Any]]]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Part:
    """One source of a mixture, with its own transforms."""

    name: str
    source: Source
    transform: str = ""
    cached_transform: str = ""
    batch_size: int = 0  # of a mixture of whole batches; 0: that of the run
    like: str = ""  # the first part of the same source; "": this one


class Mixture(Joined):
    """The concatenated examples of all parts, and their sampling weights.

    Args:
      history: [[step, {part: weight}], ...] of the run; see `MixtureOrder`.
      whole_batches: each step takes its rows from one part; see `WholeBatches`.

    Attributes:
      class_names: of the part that has the classes of all others, by which their labels are
        numbered; None if there is none.
    """

    def __init__(self, parts: Sequence[Part], history: History, whole_batches: bool = False):
        names = widest(p.source.class_names for p in parts if p.source.class_names is not None)
        if names is not None:
            parts = [_numbered(p, names) if p.source.class_names else p for p in parts]
        super().__init__([part.source for part in parts])
        self.parts, self.history, self.class_names = tuple(parts), history, names
        self.whole_batches = whole_batches
        self.name = "the mixture of " + ", ".join(part.name for part in parts)

    def _labeled(self, example: dict[str, Any]) -> dict[str, Any]:
        return example  # the part's transform reads the label


def open_training(
    data: Mapping[str, Any], *, workdir: str | os.PathLike | None = None, processes: int = 1
) -> Source:
    """The source of `config.data.train`, a `Mixture` if its kind is "mixture".

    Args:
      data: `config.data`.
      workdir, processes: see `open_source`.

    Raises:
      ValueError: as `open_source`; unknown, missing or invalid settings of a mixture.
    """
    opening = {"workdir": workdir, "check_media": False, "processes": processes}
    train, hold_out = data["train"], data.get("hold_out", 0.0)
    if not 0 <= hold_out < 1:
        raise ValueError(f"config.data.hold_out is {hold_out}: use a fraction from 0 to below 1.")
    if train.get("kind") != "mixture":
        if hold_out:
            train, _ = held_out(train, hold_out)
        return sources.open_source(train, **opening)
    if hold_out:
        raise ValueError(
            "config.data.hold_out is for one source, and config.data.train is a mixture: give its "
            "parts sources of kind 'part', and evaluators on the rest."
        )
    _check_names(train, ("kind", "parts", "whole_batches"), "config.data.train")
    whole = train.get("whole_batches", False)
    if not _is_section(train.get("parts", {})):
        raise ValueError(
            f"config.data.train.parts is {train['parts']!r}: use a dict, part name -> settings."
        )
    if not train.get("parts"):
        raise ValueError("The mixture config.data.train has no parts: name some in 'parts'.")
    if data.get("cached_transform"):
        raise ValueError(
            "config.data.cached_transform is for one source, and config.data.train is a mixture: "
            "give its parts a cached_transform each."
        )
    parts, weights = _open_parts(train["parts"], whole, opening)
    parts = _with_same_classes(parts, data.get("transform", ""))
    weights = resolved(weights, parts, data.get("transform", ""))
    check_weights(weights, list(weights))
    for name, weight in weights.items():
        if not any([weight] if is_number(weight) else [y for _, y in weight]):
            _log.warning("part '%s' of the mixture has weight 0 at every step", name)
    return Mixture(parts, [(0, weights)], whole)


def _open_parts(
    given: Mapping[str, Any], whole: bool, opening: Mapping[str, Any]
) -> tuple[list[Part], dict[str, Any]]:
    """The parts of `config.data.train.parts`, and their weights as they are set, by name."""
    parts, weights, opened = [], {}, {}
    for name, settings in sorted(given.items()):
        where = f"config.data.train.parts.{name}"
        if not _is_section(settings):
            raise ValueError(f"{where} is {settings!r}: use a dict with a source.")
        if _is_section(settings.get("weight", 1.0)):
            raise ValueError(f"{where}.weight is a dict: use a number, points, or {WORDS}.")
        known = ("source", "transform", "weight", "cached_transform")
        _check_names(settings, (*known, "batch_size") if whole else known, where)
        if not settings.get("source"):
            raise ValueError(f"{where} has no source: give it the config of one.")
        same = str(settings["source"])
        try:
            if not whole or same not in opened:
                opened[same] = sources.open_source(settings["source"], **opening)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        source = opened[same]
        if not len(source):
            raise ValueError(f"{where}: {source.name} has no examples: take this part out.")
        own = {k: settings[k] for k in ("transform", "cached_transform") if k in settings}
        first = next((part.name for part in parts if part.source is source), "")
        own |= {"batch_size": _rows(settings, where), "like": first}
        parts.append(Part(str(name), source, **own))
        weights[str(name)] = _plain(settings.get("weight", 1.0))
    return parts, weights


def _rows(settings: Mapping[str, Any], where: str) -> int:
    """Rows of a step of a part; 0: as many as the run has."""
    rows = settings.get("batch_size", 0)
    if type(rows) is not int or rows < ("batch_size" in settings):
        raise ValueError(f"{where}.batch_size is {rows!r}: use a whole number from 1.")
    return rows


def _is_section(value: Any) -> bool:
    return hasattr(value, "items")


def _with_same_classes(parts: Sequence[Part], after: str) -> list[Part]:
    """The parts, those with a step `label` with their labels numbered alike."""
    labeled = [
        part
        for part in parts
        if "label" in {step for text in (part.transform, after) for step, *_ in chain.read(text)}
    ]
    names = _classes_of_all(labeled)
    if names is None:
        return list(parts)
    return [_numbered(part, names) if part in labeled else part for part in parts]


def _classes_of_all(parts: Sequence[Part]) -> list[str] | None:
    """The class names of the part that has those of all; None if no part has any.

    Raises:
      ValueError: different classes, whose labels would be numbered each from 0.
    """
    lists = [part.source.class_names for part in parts]
    if not any(lists):
        return None
    names = None if None in lists else widest(lists)
    if names is not None:
        return names
    first = max(parts, key=lambda part: len(part.source.class_names or ()))
    known = set(first.source.class_names)
    other = next(part for part in parts if not known >= set(part.source.class_names or [None]))
    first, other = sorted((first, other), key=parts.index)
    raise ValueError(
        f"The parts '{first.name}' and '{other.name}' of the mixture have different classes "
        f"({first.source.class_names} and {other.source.class_names}), and label numbers each "
        "from 0: take label out of the transform of one, or use sets of which one has the "
        "classes of the others."
    )


def _numbered(part: Part, names: Sequence[str], whose: str = "the other parts") -> Part:
    return dataclasses.replace(part, source=renumbered_source(part.source, names, whose))


def renumbered(source: Source, names: Sequence[str], whose: str) -> Source:
    """As `sources.renumbered.renumbered`, of a training source."""
    if not isinstance(source, Mixture):
        return renumbered_source(source, names, whose)
    parts = [_numbered(part, names, whose) for part in source.parts]
    return Mixture(parts, source.history, source.whole_batches)


def classes_of(source: Source) -> list[str] | None:
    """All class names of a training source, as it was opened; None if it has none."""
    if not isinstance(source, Mixture):
        return source.class_names
    names = [name for part in source.parts for name in part.source.class_names or ()]
    return list(dict.fromkeys(names)) or None


def check_classes(source: Source) -> None:
    """Raise ValueError for a mixture whose labels are of different classes."""
    if isinstance(source, Mixture):
        _classes_of_all([part for part in source.parts if part.source.class_names])


def _check_names(settings: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in settings:
        if key not in known:
            hint = nearest(key, known)
            raise ValueError(f"{where} has no setting '{key}'.{hint} It takes: {', '.join(known)}.")


def _plain(value: Any) -> Any:
    """The value after a JSON round trip, comparable to weights from a checkpoint."""
    return json.loads(json.dumps(value))


def continued(source: Source, history: History | None, step: int) -> Source:
    """The training source of a run that resumes at `step`.

    Weights that differ from those of the run take effect at that step; the rows consumed before it
    do not change.

    Args:
      history: from the checkpoint (`history_of`); None if it has none.

    Raises:
      ValueError: the history has a part that is no longer in the mixture.
    """
    if not isinstance(source, Mixture):
        return source
    now = source.history[-1][1]
    kept = [(int(at), weights) for at, weights in history or [] if at < step]
    for _, weights in kept:
        check_weights(weights, [part.name for part in source.parts])
    if not kept or kept[-1][1] != now:
        kept.append((step if kept else 0, now))
    return Mixture(source.parts, kept, source.whole_batches)


def history_of(source: Source) -> History | None:
    """The weights' history that a checkpoint stores, for `continued`; None for a plain source."""
    return source.history if isinstance(source, Mixture) else None


def parts_of(source: Source) -> dict[str, Source]:
    """The parts; a plain source is one part, `PLAIN`."""
    if isinstance(source, Mixture):
        return {part.name: part.source for part in source.parts}
    return {PLAIN: source}


def sizes_of(source: Source, position: int) -> dict[str, int]:
    """How many examples of each of `parts_of` the order depends on, up to a position of a plain
    source; see `Source.size_at`."""
    if isinstance(source, Mixture):
        return {part.name: len(part.source) for part in source.parts}
    return {PLAIN: source.size_at(position)}


def about(source: Source, batch_size: int) -> dict[str, Any]:
    """Name, number of examples (those that several parts share counted once; None while it is not
    known), and mean number of rows of a step, of a training source."""
    parts = source.parts if isinstance(source, Mixture) else ()
    examples = sum(len(part.source) for part in parts if not part.like) if parts else source.total
    return {
        "name": source.name,
        "examples": examples,
        "rows": mean_rows(source, batch_size),
    }


def rows_of(source: Source, batch_size: int) -> dict[str, int]:
    """Rows of a step of each part of a mixture of whole batches; {} for another source.

    Raises:
      ValueError: a part with more rows than a batch.
    """
    if not isinstance(source, Mixture) or not source.whole_batches:
        return {}
    rows = {part.name: part.batch_size or batch_size for part in source.parts}
    name = max(rows, key=rows.get)
    if rows[name] > batch_size:
        raise ValueError(
            f"config.data.train.parts.{name}.batch_size is {rows[name]}, more than "
            f"config.batch_size, {batch_size}: raise that to the largest of all parts."
        )
    return rows


def mean_rows(source: Source, batch_size: int) -> float:
    """Mean number of rows of the run's steps, by the last weights."""
    rows = rows_of(source, batch_size)
    if not rows:
        return batch_size
    weights = source.history[-1][1]
    last = {k: w if is_number(w) else w[-1][1] for k, w in weights.items()}
    return sum(last[k] * n for k, n in rows.items()) / sum(last.values())


def order_of(source: Source, batch_size: int, seed: int) -> MixtureOrder | WholeBatches:
    """The order in which a training source is read.

    Raises:
      ValueError: as `rows_of`.
    """
    rows, parts = rows_of(source, batch_size), parts_of(source)
    sizes = {name: part.ready for name, part in parts.items()}
    orders = {name: part.index_at for name, part in parts.items() if hasattr(part, "index_at")}
    if rows:
        names = list(rows)
        firsts = [names.index(part.like or part.name) for part in source.parts]
        given = (source.history, seed, sizes, list(rows.values()), firsts, orders)
        return WholeBatches(*given)
    history = history_of(source) or [(0, {PLAIN: 1})]
    return MixtureOrder(history, batch_size, seed, sizes, orders)


def make_transforms(
    source: Source, data: Mapping[str, Any], tokenizer: Any
) -> tuple[Source, Transform | dict[str, Transform]]:
    """The training source, cached where the config says so, and its transforms.

    Args:
      data: `config.data`.

    Returns:
      The transform; for a mixture {part: transform}, its own followed by `config.data.transform`.

    Raises:
      ValueError: an invalid transform chain.
    """
    if not isinstance(source, Mixture):
        context = {"tokenizer": tokenizer, "class_names": source.class_names}
        source = _cached(source, data["cached_transform"], context)
        return source, parse(data["transform"], **context)
    parts, transforms, shared = [], {}, {}
    for part in source.parts:
        context = {"tokenizer": tokenizer, "class_names": part.source.class_names}
        same = part.like or part.name, part.cached_transform
        if same not in shared:
            shared[same] = _cached(part.source, part.cached_transform, context)
        parts.append(dataclasses.replace(part, source=shared[same]))
        transforms[part.name] = parse(_chained([part.transform, data["transform"]]), **context)
    return Mixture(parts, source.history, source.whole_batches), transforms


def _cached(source: Source, text: str, context: Mapping[str, Any]) -> Source:
    if text and hasattr(source, "index_at"):
        raise ValueError(
            f"{source.name} is read in windows, and a cached_transform keeps every example in "
            "memory: take out one of the two, 'window' or 'cached_transform'."
        )
    return InMemory(source, parse(text, **context)) if text else source


def _chained(texts: Iterable[str]) -> str:
    return " | ".join(text for text in texts if text.strip())
