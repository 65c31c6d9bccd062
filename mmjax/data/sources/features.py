"""Features of a source's images and captions by frozen towers: see `mmjax.photos.features`."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.data.source import Source
from mmjax.data.sources.array_records import DATASET, open_records, read_dataset

COMMAND = "python -m mmjax.photos.features --config=CONFIG"


def open_features(
    root: str | os.PathLike,
    of: Mapping[str, Any],
    image_model: str,
    text_model: str,
    transform: str = "",
    copies: int = 0,
) -> Source:
    """Examples with `image_features` [1 + copies, D], `captions`, and their `text_features` [K, E].

    Args:
      root: the folder of the features.
      of: the config of the source of images and captions.
      image_model, text_model: the towers, as `mmjax.load` takes them.
      transform: of the images; "": as the image tower takes them.
      copies: random ones of every image by that transform, after one without its random steps.

    Raises:
      ValueError: features that are missing, incomplete, or of other settings.
    """
    folder = Path(root).expanduser()
    if not (folder / DATASET).is_file():
        raise ValueError(f"There are no features in {folder}: run {COMMAND} first.")
    written = read_dataset(folder)
    for name, value in json.loads(
        json.dumps(settings(of, image_model, text_model, transform, copies))
    ).items():
        if written.get(name) != value:
            raise ValueError(
                f"{folder} has features with {name} = {written.get(name)!r} and the config says "
                f"{value!r}: set another root and run {COMMAND}."
            )
    return open_records(folder)


def settings(
    of: Mapping[str, Any], image_model: str, text_model: str, transform: str, copies: int
) -> dict[str, Any]:
    """What determines the features."""
    source = of.to_dict() if hasattr(of, "to_dict") else dict(of)
    towers = {"image_model": image_model, "text_model": text_model}
    return {**towers, "source": source, "transform": transform, "copies": copies}
