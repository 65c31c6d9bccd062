"""The two parts of a training source for `config.data.hold_out`, as configs of sources."""

from collections.abc import Mapping
from typing import Any

Config = dict[str, Any]


def held_out(train: Mapping[str, Any], fraction: float) -> tuple[Config, Config]:
    """What is trained on and what is only evaluated, that fraction of the source.

    Of synthetic scenes it is a fraction of the concepts of their objects: other scenes of the same
    objects would not be held out. Of mosaics of scenes, as well, and it is the scenes themselves
    that are evaluated.

    Raises:
      ValueError: mosaics of other images, all of which are in the mosaics.
    """
    kind = train.get("kind")
    if kind == "scenes" and "objects" in train:  # else opening it says what is missing
        return _scenes(train, 0.0, 1 - fraction), _scenes(train, 1 - fraction, 1.0)
    if kind == "mosaics":
        source = train.get("source")
        if not hasattr(source, "items") or source.get("kind") != "scenes":
            raise ValueError(
                "config.data.hold_out of mosaics would evaluate on images that other mosaics train "
                "on: give config.data.train.source a source of kind 'part', and evaluators on the "
                "rest."
            )
        seen, unseen = held_out(source, fraction)
        return {**train, "source": seen}, unseen
    part = {"kind": "part", "source": train}
    return part | {"stop": 1 - fraction}, part | {"start": 1 - fraction, "stop": 1.0}


def _scenes(train: Mapping[str, Any], start: float, stop: float) -> Config:
    """Scenes of a part of the concepts, whose class names are only theirs."""
    by = train.get("name_key") or "label"
    objects = {"kind": "part", "source": train["objects"], "start": start, "stop": stop, "by": by}
    if by == "label":
        objects = {"kind": "occurring", "source": objects}
    return {**train, "objects": objects}
