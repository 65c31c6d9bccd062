"""Opens the source that a config describes."""

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mmjax import storage
from mmjax.config import check_type, nearest
from mmjax.data.source import Source
from mmjax.data.sources import webdataset
from mmjax.data.sources.array_records import open_records
from mmjax.data.sources.balanced import Balanced
from mmjax.data.sources.bucket import open_bucket
from mmjax.data.sources.caption_swaps import open_caption_swaps
from mmjax.data.sources.coco import open_coco
from mmjax.data.sources.conversations import open_conversations
from mmjax.data.sources.digit_instructions import open_digit_instructions
from mmjax.data.sources.emoji_instructions import open_emoji_instructions
from mmjax.data.sources.emoji_pairs import open_emoji_pairs
from mmjax.data.sources.emoji_questions import open_questions
from mmjax.data.sources.features import open_features
from mmjax.data.sources.folder import open_folder
from mmjax.data.sources.grounded_instructions import open_grounded_instructions
from mmjax.data.sources.joined import open_joined
from mmjax.data.sources.lip_clips import open_lip_clips
from mmjax.data.sources.mosaics import open_mosaics
from mmjax.data.sources.neighbors import open_neighbors
from mmjax.data.sources.nlvr2 import open_nlvr2
from mmjax.data.sources.occurring import open_occurring
from mmjax.data.sources.packed import open_packed
from mmjax.data.sources.paired import Paired
from mmjax.data.sources.part import open_part
from mmjax.data.sources.recordings import open_recordings
from mmjax.data.sources.refcoco import open_refcoco
from mmjax.data.sources.sa1b import open_sa1b
from mmjax.data.sources.scene_relations import open_scene_relations
from mmjax.data.sources.scenes import open_scenes
from mmjax.data.sources.sort_of_clevr import open_sort_of_clevr
from mmjax.data.sources.swapped import open_swapped
from mmjax.data.sources.text_windows import open_text_windows
from mmjax.data.sources.tfds import open_tfds
from mmjax.data.sources.videos import open_videos
from mmjax.data.sources.visual_genome import open_visual_genome


def open_source(
    config: Mapping[str, Any],
    *,
    workdir: str | os.PathLike | None = None,
    check_media: bool = True,
    processes: int = 1,
) -> Source:
    """The source that a config describes.

    Args:
      config: `kind`, one of `KINDS` at the end of this file, and the settings of its opener. A
        setting that the opener annotates as a `Source` is itself a config, and is opened first.
      workdir: where `bad_records.jsonl` is written; None: the data cache.
      check_media: every image and video is decoded once before the source is used, and those that
        cannot be are left out. False, for training: a large source may find them when they are
        read, see `Source.is_bad`.
      processes: how many share the examples of each batch.

    Raises:
      ValueError: an unknown kind, an unknown or missing setting, or unusable data.
    """
    settings = dict(config)
    kind = settings.pop("kind", None)
    if kind == "mixture":
        raise ValueError(
            "A source of kind 'mixture' is for training alone, as config.data.train: name one "
            "source here, or several concatenated ones as kind 'joined'."
        )
    if kind not in KINDS:
        raise ValueError(f"The source's kind is {kind!r}; it must be one of {', '.join(KINDS)}.")
    opener = KINDS[kind]
    parameters = dict(inspect.signature(opener).parameters)
    given = {"workdir": workdir, "check_media": check_media, "processes": processes}
    given = {name: value for name, value in given.items() if parameters.pop(name, None)}
    # Parts are of all records, bad ones too: so they are the same whether there is a check or not.
    within = {"part": False, "joined": check_media}.get(kind, True)
    nested = {"workdir": workdir, "check_media": within, "processes": processes}
    for name in settings.keys() - parameters.keys():
        hint = nearest(name, parameters) or f" It takes: {', '.join(parameters)}."
        raise ValueError(f"A source of kind '{kind}' has no setting '{name}'.{hint}")
    inputs: list[Source] = []
    for name, parameter in parameters.items():
        if name not in settings:
            if parameter.default is parameter.empty:
                raise ValueError(f"A source of kind '{kind}' needs the setting '{name}'.")
            continue
        check_type(settings[name], parameter.annotation, f"The setting '{name}' of kind '{kind}'")
        if kind not in OF_BUCKETS and isinstance(settings[name], str):
            _check_local(settings[name], kind, name)
        if parameter.annotation is Source:
            settings[name] = _nested(settings[name], kind, name, **nested)
            inputs.append(settings[name])
        elif parameter.annotation == Sequence[Source]:
            several = (
                settings[name] if isinstance(settings[name], tuple | list) else [settings[name]]
            )
            settings[name] = [_nested(one, kind, name, **nested) for one in several]
            inputs += settings[name]
    opened = opener(**settings, **given)
    if opened not in inputs:  # some give back what they were given
        opened.inputs = [*opened.inputs, *(one for one in inputs if one not in opened.inputs)]
        opened.named_files = list(_named(settings))
    return opened


def _named(settings: Mapping[str, Any]) -> Iterator[Path]:
    """The files that settings name, by their path or below `root`."""
    root = Path(settings.get("root") or "").expanduser()
    for value in settings.values():
        if isinstance(value, str | os.PathLike):
            places = (Path(value).expanduser(), root / value)
            yield from [path for path in places if os.path.isfile(path)][:1]


def _check_local(path: str, kind: str, name: str) -> None:
    if storage.is_url(path):
        raise ValueError(
            f"The setting '{name}' of kind '{kind}' is '{path}', and this kind reads a disk: copy "
            "the files there, or write them as webdataset shards, which are read from a bucket."
        )


def _nested(config: Any, kind: str, name: str, **given: Any) -> Source:
    if not hasattr(config, "items"):  # a ConfigDict is not a Mapping
        raise ValueError(
            f"The setting '{name}' of a source of kind '{kind}' is {config!r}: it must be the "
            "config of a source."
        )
    if config.get("kind") == "webdataset" and config.get("window"):
        raise ValueError(
            f"The setting '{name}' of a source of kind '{kind}' has shards with a window, which is "
            "for config.data.train itself or a part of a mixture, without hold_out: take it out, "
            "or evaluate on other shards."
        )
    return open_source(config, **given)


KINDS = {
    "tfds": open_tfds,
    "folder": open_folder,
    "recordings": open_recordings,
    "videos": open_videos,
    "text_windows": open_text_windows,
    "webdataset": webdataset.open_shards,
    "array_record": open_records,
    "features": open_features,
    "lip_clips": open_lip_clips,
    "conversations": open_conversations,
    "packed": open_packed,
    "bucket": open_bucket,
    "paired": Paired,
    "part": open_part,
    "joined": open_joined,
    "balanced": Balanced,
    "mosaics": open_mosaics,
    "occurring": open_occurring,
    "swapped": open_swapped,
    "emoji_pairs": open_emoji_pairs,
    "emoji_instructions": open_emoji_instructions,
    "digit_instructions": open_digit_instructions,
    "grounded_instructions": open_grounded_instructions,
    "emoji_questions": open_questions,
    "neighbors": open_neighbors,
    "nlvr2": open_nlvr2,
    "coco": open_coco,
    "refcoco": open_refcoco,
    "visual_genome": open_visual_genome,
    "sa1b": open_sa1b,
    "scenes": open_scenes,
    "scene_relations": open_scene_relations,
    "caption_swaps": open_caption_swaps,
    "sort_of_clevr": open_sort_of_clevr,
}


OF_BUCKETS = {"webdataset"}  # kinds that read URLs


def index_part(config: Mapping[str, Any], index: int, count: int) -> None:
    """Do one of `count` parts of what opening a source, or the sources within it, would do first,
    where that can be divided: process `index` of `count` calls it before one of them opens it.

    Raises:
      ValueError: unusable data.
    """
    if config.get("kind") == "webdataset":
        names = inspect.signature(webdataset.index_part).parameters
        settings = {name: value for name, value in config.items() if name in names}
        webdataset.index_part((index, count), **settings)
    for value in config.values():
        for inner in value if isinstance(value, tuple | list) else [value]:
            if hasattr(inner, "items"):
                index_part(inner, index, count)


def sources_of(config: ConfigDict) -> dict[str, ConfigDict]:
    """The settings of every source in a config, by path: "data.train" first.

    A mixture is listed by its parts: "data.train.parts.NAME.source".
    """
    found = {"data.train": config.data.train}
    if config.data.train.get("kind") == "mixture":
        parts = config.data.train.get("parts", {}).items()
        found = {f"data.train.parts.{k}.source": v.source for k, v in parts if "source" in v}
    for name, evaluator in config.evals.items():
        # Of another type: refused by make_evaluators.
        for key, value in evaluator.items() if hasattr(evaluator, "items") else ():
            if key.endswith("source"):
                found[f"evals.{name}.{key}"] = value
    return found
