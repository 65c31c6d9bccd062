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
from mmjax.models.vit import ViT
from mmjax.weights import published
from mmjax.weights.published import Published

# In the order of Pillow's filter numbers.
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


_BICUBIC = {"resample": FILTERS.index("bicubic"), "default_to_square": False}
_CLIP = {
    **_BICUBIC,
    "size": {"shortest_edge": 224},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
}
_HALF = {"image_mean": (0.5,) * 3, "image_std": (0.5,) * 3}
_SQUARE = {"size": {"height": 224, "width": 224}, **_HALF}
_TILES = {
    **_HALF,
    "resample": FILTERS.index("lanczos"),
    "size": {"longest_edge": 4 * 364},
    "max_image_size": {"longest_edge": 364},
    "do_image_splitting": True,
    "do_pad": True,
}
_VIDEO = {
    **_HALF,
    "resample": FILTERS.index("bilinear"),
    "default_to_square": False,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
}
# Settings that a file may omit, by its image_processor_type: defaults of transformers 5.23.
CLASSES = {
    "BitImageProcessor": _CLIP,
    "BlipImageProcessor": {
        **_BICUBIC,
        "default_to_square": True,
        "size": {"height": 384, "width": 384},
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    },
    "CLIPImageProcessor": _CLIP,
    "ChineseCLIPImageProcessor": _CLIP,
    "DeiTImageProcessor": {
        **_BICUBIC,
        **_HALF,
        "default_to_square": True,
        "size": {"height": 256, "width": 256},
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
    },
    "EfficientNetImageProcessor": {
        **_BICUBIC,
        **_HALF,
        "default_to_square": True,
        "size": {"height": 346, "width": 346},
        "crop_size": {"height": 289, "width": 289},
        "include_top": True,
    },
    "FlavaImageProcessor": {
        **_CLIP,
        "default_to_square": True,
        "size": {"height": 224, "width": 224},
        "codebook_do_resize": True,
        "codebook_size": {"height": 112, "width": 112},
        "codebook_resample": FILTERS.index("lanczos"),
        "codebook_do_center_crop": True,
        "codebook_crop_size": {"height": 112, "width": 112},
        "codebook_do_rescale": True,
        "codebook_rescale_factor": 1 / 255,
        "codebook_do_map_pixels": True,
        "codebook_do_normalize": True,
        "codebook_image_mean": (0.0,) * 3,
        "codebook_image_std": (1.0,) * 3,
    },
    "Idefics3ImageProcessor": _TILES,
    "OwlViTImageProcessor": {
        **_CLIP,
        "default_to_square": True,
        "size": {"height": 768, "width": 768},
        "do_center_crop": False,
    },
    "Owlv2ImageProcessor": {
        **_CLIP,
        "default_to_square": True,
        "size": {"height": 960, "width": 960},
        "do_center_crop": False,
        "do_pad": True,
        "anti_aliasing": True,
    },
    "SamImageProcessor": {
        "resample": FILTERS.index("bilinear"),
        "size": {"longest_edge": 1024},
        "do_pad": True,
        "pad_size": {"height": 1024, "width": 1024},
        "image_mean": (0.485, 0.456, 0.406),
        "image_std": (0.229, 0.224, 0.225),
    },
    "SiglipImageProcessor": {**_BICUBIC, **_SQUARE},
    "SmolVLMImageProcessor": _TILES,
    "ViltImageProcessor": {
        **_BICUBIC,
        **_HALF,
        "size": {"shortest_edge": 384},
        "size_divisor": 32,
        "do_pad": True,
    },
    "VideoMAEImageProcessor": {
        **_VIDEO,
        "size": {"shortest_edge": 224},
    },
    "VivitImageProcessor": {
        **_VIDEO,
        "size": {"shortest_edge": 256},
        "rescale_factor": 1 / 127.5,
        "rescale_offset": True,
    },
    "ViTImageProcessor": {
        **_SQUARE,
        "resample": FILTERS.index("bilinear"),
        "default_to_square": True,
    },
}
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
    elif s.get("do_resize", True):
        square, method = s.get("default_to_square", False), _filter(s["resample"])
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


def _filter(number: Any) -> str:
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
    return f"tiles({side}, {longest}, {splits}, '{_filter(s['resample'])}')"


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
        given = inspect.signature(getattr(transforms, name)).bind(*args, **kwargs)
        given.apply_defaults()
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
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(image.image_mean),
        "image_std": list(image.image_std),
        **more,
    }
