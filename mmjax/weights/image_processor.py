"""Conversion between `preprocessor_config.json` and our image transforms."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.transforms import chain
from mmjax.data.transforms import parse as transforms
from mmjax.models.vit import ViT

# In the order of Pillow's filter numbers.
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Images(NamedTuple):
    """The chain of transforms up to uint8 pixels, and the mean and std with which the model
    normalizes them (values in [0, 1], per channel)."""

    transform: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def read(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> Images:
    """The transforms that a preprocessor_config.json describes.

    Args:
      settings: the file's content; defaults: the default settings of its class.

    Raises:
      ValueError: settings that our transforms do not support.
    """
    s = {**defaults, **{k: v for k, v in settings.items() if v is not None}}
    steps = ["decode"]
    if s.get("do_resize", True):
        square = s.get("default_to_square", False)
        steps.append(_resize(s["size"], FILTERS[int(s["resample"])], square))
    if s.get("do_center_crop", False):
        steps.append(f"center_crop({_sides(s['crop_size'])})")
    mean, std = np.zeros(3), np.ones(3)
    if s.get("do_normalize", True):
        mean, std = np.asarray(s["image_mean"]), np.asarray(s["image_std"])
    if s.get("include_top", False):  # EfficientNet: divided by std a second time
        std = std * s["image_std"]
    if s.get("do_rescale", True):
        # Rescaling, x · factor - offset, and normalization combined into one map of x / 255.
        scale = 255 * s.get("rescale_factor", 1 / 255)
        mean, std = (mean + bool(s.get("rescale_offset", False))) / scale, std / scale
    return Images(" | ".join(steps), tuple(mean.tolist()), tuple(std.tolist()))


def _resize(size: int | Mapping[str, int], method: str, square: bool) -> str:
    if isinstance(size, int):  # older files; its meaning depends on the class
        size = {"height": size, "width": size} if square else {"shortest_edge": size}
    if set(size) == {"shortest_edge"}:
        return f"resize_short({size['shortest_edge']}, '{method}')"
    if set(size) == {"height", "width"}:
        return f"resize({_sides(size)}, '{method}')"
    raise ValueError(
        f"preprocessor_config.json has size {dict(size)}; 'shortest_edge' alone, or 'height' and "
        "'width', can be read."
    )


def _sides(size: int | Mapping[str, int] | Sequence[int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping):
        return int(size["height"]), int(size["width"])
    return tuple(size)


def _named(size: int | Sequence[int]) -> dict[str, int]:
    return dict(zip(("height", "width"), _sides(size)))


def write(image: ViT, transform: str, processor: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our image towers.

    Args:
      transform: the chain of transforms of its images; only resizing and cropping are used.
      processor: the image processor class that reads the file.

    Raises:
      ValueError: a chain that resizes without antialiasing, which no such class supports.
    """
    size, method, crop = image.train_size, "bicubic", None
    for name, args, kwargs, _ in chain.read(transform):
        given = inspect.signature(getattr(transforms, name)).bind(*args, **kwargs)
        given.apply_defaults()
        if name in ("resize", "resize_short"):
            size, method = given.arguments["size"], given.arguments["method"]
            if not given.arguments.get("antialias", True):
                raise ValueError(
                    f"The images of '{transform}' are resized without antialiasing, which "
                    f"{processor} cannot do: save the model with another transform."
                )
            if name == "resize_short":
                size = {"shortest_edge": size}
        elif name == "center_crop":
            crop = given.arguments["size"]
    return {
        "image_processor_type": processor,
        "do_resize": True,
        "size": size if isinstance(size, dict) else _named(size),
        "resample": FILTERS.index(method),
        "do_center_crop": crop is not None,
        "crop_size": _named(image.train_size if crop is None else crop),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(image.image_mean),
        "image_std": list(image.image_std),
    }
