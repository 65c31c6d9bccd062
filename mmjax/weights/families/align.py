"""ALIGN: EfficientNet and BERT (model_type "align")."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.models.bert import BERT
from mmjax.models.clip import CLIP
from mmjax.models.efficientnet import EfficientNet, round_channels
from mmjax.weights import image_defaults, image_processor, published
from mmjax.weights.families import bert, clip
from mmjax.weights.layouts import (
    Row,
    batch_counts,
    convolution,
    frozen_batch_norm,
    linear,
    pointwise,
)
from mmjax.weights.published import Published

SYSTEM = "clip"
IGNORED = (r".*\.num_batches_tracked", r"text_model\.embeddings\.position_ids")

# Of the published model, in place of the defaults of its image processor's class: pixels in [-1, 1]
# (transformers: convert_align_tf_to_hf.py, get_processor).
IMAGES = {
    "do_center_crop": True,
    "resample": image_defaults.FILTERS.index("bilinear"),
    "rescale_factor": 1 / 127.5,
    "rescale_offset": True,
    "do_normalize": False,
    "include_top": False,
}
# Settings that config.json may omit: defaults of AlignVisionConfig.
VISION = {
    "image_size": 600,
    "width_coefficient": 2.0,
    "depth_coefficient": 3.1,
    "depth_divisor": 8,
    "kernel_sizes": (3, 3, 5, 3, 5, 5, 3),
    "in_channels": (32, 16, 24, 40, 80, 112, 192),
    "out_channels": (16, 24, 40, 80, 112, 192, 320),
    "depthwise_padding": (),
    "strides": (1, 2, 2, 2, 1, 2, 1),
    "num_block_repeats": (1, 2, 2, 3, 3, 4, 1),
    "expand_ratios": (1, 6, 6, 6, 6, 6, 6),
    "squeeze_expansion_ratio": 0.25,
    "batch_norm_eps": 1e-3,
    "hidden_act": "swish",
    "pooling_type": "mean",
}


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    vision = published.tower(found, VISION, "vision_config")
    published.check_fixed(
        found._replace(config=vision), {"hidden_act": "swish", "pooling_type": "mean"}
    )
    text = bert.tower_fields(published.tower(found, bert.SETTINGS, "text_config"), "text_config")
    images = image_processor.read(found.preprocessor)
    return {
        "name": "clip",
        "embed_dim": clip.embed_dim(found, 640),
        "image": {
            "kind": "efficientnet",
            "stem": _channels(32, vision),
            "stages": _stages(vision),
            "image_size": vision["image_size"],
            "image_mean": images.mean,
            "image_std": images.std,
            "squeeze": vision["squeeze_expansion_ratio"],
            "centred": tuple(vision["depthwise_padding"]),
            "norm_epsilon": vision["batch_norm_eps"],
        },
        "text": {"kind": "bert", **text, "pool": "cls", "pooler": True},
        "image_proj": False,
        "proj_bias": True,
    }


def _stages(vision: Mapping[str, Any]) -> list[dict[str, int]]:
    """The stages of an `EfficientNet`, scaled in width and depth.

    Raises:
      ValueError: another number of stages in some settings than in others.
    """
    names = ("out_channels", "num_block_repeats", "kernel_sizes", "strides", "expand_ratios")
    counts = [len(vision[name]) for name in names]
    if len(set(counts)) > 1:
        raise ValueError(
            f"The vision_config has {counts} values of {', '.join(names)}: one for each stage is "
            "needed; get it again."
        )
    return [
        {
            "channels": _channels(channels, vision),
            "depth": math.ceil(vision["depth_coefficient"] * depth),
            "kernel": kernel,
            "stride": stride,
            "expand": expand,
        }
        for channels, depth, kernel, stride, expand in zip(
            *(vision[name] for name in names), strict=True
        )
    ]


def _channels(channels: int, vision: Mapping[str, Any]) -> int:
    return round_channels(channels, vision["width_coefficient"], vision["depth_divisor"])


def image_source(found: Published) -> image_processor.Source:
    """Where the settings of the image processor come from."""
    return image_processor.Source("EfficientNetImageProcessor", "vision_config", usual=IMAGES)


def rows(model: CLIP) -> list[Row]:
    """The rename table of a model."""
    vision = "vision_model.embeddings"
    return [
        *convolution("image/stem", f"{vision}.convolution"),
        *frozen_batch_norm("image/norm_stem", f"{vision}.batchnorm"),
        *(
            row
            for i, wide in enumerate(_expands(model.image_tower(parent=None)))
            for row in _block(f"image/block{i}", f"vision_model.encoder.blocks.{i}", wide)
        ),
        *bert.tower_rows("text", "text_model.", model.text_tower(parent=None)),
        *linear("text_proj", "text_projection"),
        Row(
            ("logit_scale",),
            ("temperature",),
            lambda temperature: (-np.log(temperature),),
            lambda scale: (np.exp(-scale),),
        ),
    ]


def _expands(image: EfficientNet) -> list[bool]:
    """Whether each block has an expansion."""
    return [stage["expand"] != 1 for stage in image.stages for _ in range(stage["depth"])]


def _block(ours: str, theirs: str, expands: bool) -> list[Row]:
    excite, expansion = f"{theirs}.squeeze_excite", f"{theirs}.expansion"
    depthwise, projection = f"{theirs}.depthwise_conv", f"{theirs}.projection"
    table = [
        *convolution(f"{ours}/depthwise", f"{depthwise}.depthwise_conv"),
        *frozen_batch_norm(f"{ours}/norm_depthwise", f"{depthwise}.depthwise_norm"),
        *pointwise(f"{ours}/squeeze", f"{excite}.reduce", bias=True),
        *pointwise(f"{ours}/excite", f"{excite}.expand", bias=True),
        *pointwise(f"{ours}/project", f"{projection}.project_conv"),
        *frozen_batch_norm(f"{ours}/norm_project", f"{projection}.project_bn"),
    ]
    if expands:
        table += pointwise(f"{ours}/expand", f"{expansion}.expand_conv")
        table += frozen_batch_norm(f"{ours}/norm_expand", f"{expansion}.expand_bn")
    return table


def published_config(model: CLIP) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published ALIGN cannot have.
    """
    image, text = clip.towers(model, "align", EfficientNet, BERT)
    vision = _vision(image)
    published.check_settings(
        "align",
        {
            "image.image_size": (image.train_size, (image.train_size[0],) * 2),
            "image.stem and image.stages of one width": (
                image.stem == _channels(32, vision)
                and [dict(stage) for stage in image.stages] == _stages(vision),
                True,
            ),
            **bert.plain(text, **{"text.pooler": (text.pooler, True)}),
            "image_proj": (model.image_proj, False),
            "text_proj": (model.text_proj, True),
            "proj_bias": (model.proj_bias, True),
            "logit_bias_init": (model.logit_bias_init, None),
        },
    )
    return {
        "model_type": "align",
        "architectures": ["AlignModel"],
        "projection_dim": model.embed_dim,
        "temperature_init_value": math.exp(-model.logit_scale_init),
        "vision_config": {**vision, "model_type": "align_vision_model"},
        "text_config": {**bert.published_tower(text), "model_type": "align_text_model"},
    }


def buffers(model: CLIP) -> dict[str, np.ndarray]:
    """The batch counts of batch norms, which transformers reports as missing otherwise."""
    return batch_counts(rows(model))


def _vision(image: EfficientNet) -> dict[str, Any]:
    """vision_config of an image tower; its stem has 32 channels times the width coefficient."""
    names = ("channels", "depth", "kernel", "stride", "expand")
    of = {name: [stage[name] for stage in image.stages] for name in names}
    width = image.stem / 32
    channels = [round(n / width) for n in of["channels"]]
    return {
        "image_size": image.train_size[0],
        "width_coefficient": width,
        "depth_coefficient": 1.0,
        "depth_divisor": math.gcd(image.stem, *of["channels"]),
        "in_channels": [32, *channels[:-1]],
        "out_channels": channels,
        "num_block_repeats": of["depth"],
        "kernel_sizes": of["kernel"],
        "strides": of["stride"],
        "expand_ratios": of["expand"],
        "squeeze_expansion_ratio": image.squeeze,
        "depthwise_padding": list(image.centred),
        "batch_norm_eps": image.norm_epsilon,
    }


def published_preprocessor(model: CLIP, transform: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our models with this image transform."""
    image = model.image_tower(parent=None)
    plain = image_processor.write(image, transform, "EfficientNetImageProcessor")
    return plain | {"rescale_offset": False, "include_top": False}
