"""Conversion between the settings of an image processor and our image transforms.

The settings are those of processor_config.json or of preprocessor_config.json.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmjax.config import nearest
from mmjax.data.transforms import chain
from mmjax.data.transforms import parse as transforms
from mmjax.layers.sizes import height_width
from mmjax.models.naflex import NaFlex
from mmjax.models.vit import ViT
from mmjax.weights import published
from mmjax.weights.image_defaults import CLASSES, FILTERS
from mmjax.weights.published import Published

# Longer side of ViLT's images, for a shorter one: int(_LONGEST * shorter).
_LONGEST = 1333 / 800
# Settings of the classes that we cannot follow, where they are on.
OTHERS = ("do_pad", "do_flip_channel_order", "use_square_size")


class Source(NamedTuple):
    """Where a family's image settings come from.

    Attributes:
      kind: the class in `CLASSES` of files that do not name theirs.
      section: of config.json, with `image_size`; "" for its top level.
      usual: settings of the family's published models, used where a folder has no file of them.
    """

    kind: str
    section: str = ""
    usual: Mapping[str, Any] = {}


class Images(NamedTuple):
    """The chain of transforms up to uint8 pixels, and the mean and std with which the model
    normalizes them (values in [0, 1], per channel)."""

    transform: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def complete(found: Published, source: Source) -> tuple[Published, list[str]]:
    """The folder with all settings of its image processor, and notes for the report.

    Without a file of them, the size is config.json's `image_size`, the rest is as usual in the
    family, and a note says so.

    Raises:
      ValueError: no file and no `image_size`, or a class that is not known.
    """
    if found.preprocessor is not None:
        given = {k: v for k, v in found.preprocessor.items() if v is not None}
        kind = given.get("feature_extractor_type", source.kind)  # of older files
        kind = str(given.get("image_processor_type", kind))
        kind = re.sub("(Fast|Pil)$", "", kind).replace("FeatureExtractor", "ImageProcessor")
        if kind not in CLASSES:
            raise ValueError(
                f"The image processor of '{found.folder}' is a '{kind}'; these can be read: "
                f"{', '.join(CLASSES)}.{nearest(kind, CLASSES)}"
            )
        return found._replace(preprocessor={**CLASSES[kind], **given}), []
    path = found.folder / published.CONFIG
    section = published.section(found.config, source.section, path)
    size = (section if source.section else found.config).get("image_size")
    if size is None:
        where = ".".join(filter(None, (source.section, "image_size")))
        raise ValueError(
            f"'{found.folder}' does not say how its images are prepared: it has neither "
            f"{published.PROCESSOR} nor {published.PREPROCESSOR}, and its config.json no {where}; "
            "get one of them."
        )
    settings = published.settings({"image_size": size}, {"image_size": 224}, path)
    height, width = height_width(settings["image_size"])
    settings = {**CLASSES[source.kind], **source.usual}
    ratio = 1.0
    if settings.get("do_center_crop", False):
        usual = settings["size"]
        ratio = usual.get("shortest_edge", usual.get("height")) / settings["crop_size"]["height"]
        settings["crop_size"] = {"height": height, "width": width}
    if height == width and "shortest_edge" in settings["size"]:
        settings["size"] = {"shortest_edge": round(ratio * height)}
    else:
        settings["size"] = {"height": round(ratio * height), "width": round(ratio * width)}
    note = (
        f"no {published.PROCESSOR} and no {published.PREPROCESSOR}: {height}x{width} "
        f"from config.json's image_size, the rest as usual for {found.config['model_type']}"
    )
    return found._replace(preprocessor=settings), [note]


def read(s: Mapping[str, Any]) -> Images:
    """The transforms that the complete settings of an image processor describe.

    Raises:
      ValueError: settings that our transforms do not support.
    """
    for name in OTHERS:
        # ViLT pads the images of a batch to one size, which a chain for one image does not say,
        # and Idefics3 their number; OWLv2 pads each to a square.
        pads = ("size_divisor", "anti_aliasing", "max_image_size")
        padded = name == "do_pad" and any(k in s for k in pads)
        if s.get(name) and not padded:
            raise ValueError(f"The image processor has {name} {s[name]!r}, which cannot be read.")
    steps = ["decode"]
    if s.get("anti_aliasing", False):  # OWLv2, which ignores `resample`
        steps += ["pad_square"] if s["do_pad"] else []
        steps += (
            [f"resize_smoothed({sides(s['size'], 'size')})"] if s.get("do_resize", True) else []
        )
    elif "max_image_size" in s:  # Idefics3
        steps.append(_tiles(s))
    elif "max_num_patches" in s:  # SigLIP 2 NaFlex
        steps.append(_patches(s))
    elif s.get("do_resize", True):
        square, method = s.get("default_to_square", False), pillow_filter(s["resample"])
        steps.append(_resize(s["size"], method, square, s.get("size_divisor")))
    if s.get("do_center_crop", False):
        steps.append(f"center_crop({sides(s['crop_size'], 'crop_size')})")
    mean, std = np.zeros(3), np.ones(3)
    if s.get("do_normalize", True):
        mean, std = (channels(s[name], name) for name in ("image_mean", "image_std"))
    if s.get("include_top", False):  # EfficientNet: divided by std a second time
        std = std * channels(s["image_std"], "image_std")
    if s.get("do_rescale", True):
        # Rescaling, x · factor - offset, and normalization combined into one map of x / 255.
        scale = 255 * channels(s.get("rescale_factor", 1 / 255), "rescale_factor")
        if not scale.all():
            raise ValueError("The image processor has rescale_factor 0: its images are black.")
        mean, std = (mean + bool(s.get("rescale_offset", False))) / scale, std / scale
    return Images(" | ".join(steps), tuple(mean.tolist()), tuple(std.tolist()))


def pillow_filter(number: Any) -> str:
    """The name of a filter of Pillow."""
    if isinstance(number, bool) or not isinstance(number, int) or number not in range(len(FILTERS)):
        raise ValueError(
            f"The image processor has resample {number!r}; 0 to {len(FILTERS) - 1} can be read."
        )
    return FILTERS[number]


def channels(value: Any, name: str) -> np.ndarray:
    """A value per channel, from one or three."""
    numbers = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(x, int | float) for x in numbers) or len(numbers) not in (1, 3):
        raise ValueError(f"The image processor has {name} {value!r}; it needs one number or three.")
    return np.broadcast_to(np.asarray(numbers, np.float64), 3)


def _resize(size: Any, method: str, square: bool, multiple: Any) -> str:
    if isinstance(size, int):  # older files; its meaning depends on the class
        size = {"height": size, "width": size} if square else {"shortest_edge": size}
    if multiple is not None:  # of ViLT, which knows no other form of size
        shorter = size.get("shortest_edge") if isinstance(size, Mapping) else None
        if type(shorter) is not int or type(multiple) is not int or multiple < 1:
            raise ValueError(
                f"The image processor has size {size!r} and size_divisor {multiple!r}; "
                "'shortest_edge' and a whole number can be read."
            )
        return f"resize_between({shorter}, {int(_LONGEST * shorter)}, {multiple}, '{method}')"
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        return f"resize_short({size['shortest_edge']}, '{method}')"
    return f"resize({sides(size, 'size')}, '{method}')"


def _tiles(s: Mapping[str, Any]) -> str:
    """The step that splits an image into tiles, or resizes it to one."""
    longest, side = (
        s[k].get("longest_edge") if isinstance(s[k], Mapping) else None
        for k in ("size", "max_image_size")
    )
    if type(longest) is not int or type(side) is not int or not s.get("do_resize", True):
        raise ValueError(
            f"The image processor has size {s['size']!r}, max_image_size {s['max_image_size']!r} "
            f"and do_resize {s.get('do_resize', True)!r}; 'longest_edge' of both, and resizing, "
            "can be read."
        )
    splits = bool(s["do_image_splitting"])
    return f"tiles({side}, {longest}, {splits}, '{pillow_filter(s['resample'])}')"


def _patches(s: Mapping[str, Any]) -> str:
    """The step that makes a row of patches."""
    budget, patch = s["max_num_patches"], s["patch_size"]
    if type(budget) is not int or type(patch) is not int or min(budget, patch) < 1:
        raise ValueError(
            f"The image processor has max_num_patches {budget!r} and patch_size {patch!r}; whole "
            "numbers from 1 can be read."
        )
    if not s.get("do_resize", True):
        raise ValueError("The image processor has do_resize false, and NaFlex resizes each image.")
    return f"patches({budget}, {patch}, '{pillow_filter(s['resample'])}')"


def sides(size: Any, name: str) -> tuple[int, int]:
    """(height, width) of a setting."""
    if isinstance(size, Mapping) and set(size) == {"height", "width"}:
        size = (size["height"], size["width"])
    size = (size, size) if isinstance(size, int) else size
    if not isinstance(size, list | tuple) or [type(x) for x in size] != [int, int]:
        raise ValueError(
            f"The image processor has {name} {size!r}; 'height' and 'width', or for size "
            "'shortest_edge' alone, can be read."
        )
    return tuple(size)


def _named(size: int | Sequence[int]) -> dict[str, int]:
    return dict(zip(("height", "width"), height_width(size)))


def _normalized(image: Any) -> dict[str, Any]:
    """The settings of rescaling and normalization of an image tower."""
    return {
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(image.image_mean),
        "image_std": list(image.image_std),
    }


def write_patches(image: NaFlex, transform: str) -> dict[str, Any]:
    """preprocessor_config.json of a SigLIP 2 NaFlex; of the chain only `patches` is used.

    Raises:
      ValueError: a chain without `patches`, or with options that the class does not have.
    """
    steps = {name: (args, kwargs) for name, args, kwargs, _ in chain.read(transform)}
    given = _bound("patches", *steps.get("patches", ((1, 1), {"enlarge": False}))).arguments
    if not given["enlarge"]:
        raise ValueError(
            f"The images of '{transform}' are not those of a Siglip2ImageProcessor, which enlarges "
            "each image to the budget: save the model with a transform patches(budget, patch_size)."
        )
    return {
        "image_processor_type": "Siglip2ImageProcessor",
        "do_resize": True,
        "resample": FILTERS.index(given["method"]),
        "patch_size": given["patch_size"],
        "max_num_patches": given["budget"],
        **_normalized(image),
    }


def _bound(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
    """The arguments of a step, defaults included."""
    given = inspect.signature(getattr(transforms, name)).bind(*args, **kwargs)
    given.apply_defaults()
    return given


def write(image: ViT, transform: str, processor: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our image towers.

    Args:
      transform: the chain of transforms of its images; only resizing and cropping are used.
      processor: the image processor class that reads the file.

    Raises:
      ValueError: a chain that resizes without antialiasing, or to other longer sides than ViLT,
        which no such class supports.
    """
    size, method, crop, more = image.train_size, "bicubic", None, {}
    for name, args, kwargs, _ in chain.read(transform):
        given = _bound(name, args, kwargs)
        if name == "pad_square":
            more["do_pad"] = True
        elif name == "resize_smoothed":
            size, method = given.arguments["size"], "bilinear"
            more.setdefault("do_pad", False)
        elif name in ("resize", "resize_short"):
            size, method = given.arguments["size"], given.arguments["method"]
            if not given.arguments.get("antialias", True):
                raise ValueError(
                    f"The images of '{transform}' are resized without antialiasing, which "
                    f"{processor} cannot do: save the model with another transform."
                )
            if name == "resize_short":
                size = {"shortest_edge": size}
        elif name == "resize_between":
            shorter, longer, method = (given.arguments[k] for k in ("shorter", "longer", "method"))
            if longer != int(_LONGEST * shorter):
                raise ValueError(
                    f"The images of '{transform}' have sides of up to {longer} pixels, and with "
                    f"{shorter} for the shorter one a {processor} goes up to "
                    f"{int(_LONGEST * shorter)}: save the model with another transform."
                )
            size = {"shortest_edge": shorter}
            more = {"size_divisor": given.arguments["multiple"], "do_pad": True}
        elif name == "tiles":
            size, method = {"longest_edge": given.arguments["longest"]}, given.arguments["method"]
            side = {"longest_edge": given.arguments["side"]}
            splits = given.arguments["split"]
            more = {"max_image_size": side, "do_image_splitting": splits, "do_pad": True}
        elif name == "center_crop":
            crop = given.arguments["size"]
    return {
        "image_processor_type": processor,
        "do_resize": True,
        "size": size if isinstance(size, dict) else _named(size),
        "resample": FILTERS.index(method),
        "do_center_crop": crop is not None,
        "crop_size": _named(image.train_size if crop is None else crop),
        **_normalized(image),
        **more,
    }
