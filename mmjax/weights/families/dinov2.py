"""DINOv2 in the layout of `transformers`, without and with registers (model_type "dinov2" and
"dinov2_with_registers").

Positions are resized to another grid as in transformers 5, with aligned edges. The original code,
and older versions of transformers, add 0.1 to the grid size in models without registers
(interpolate_offset of facebookresearch/dinov2): when 37 x 37 positions are resized to 16 x 16, this
shifts them by up to 0.27 rows to the top left. At the trained size there is no difference.
"""

from typing import Any

import numpy as np

from mmjax.models.vit import ViT
from mmjax.weights import image_processor, published
from mmjax.weights.families import vit
from mmjax.weights.layouts import Row, linear, reshaped, same
from mmjax.weights.published import Published
from mmjax.weights.tensor_file import Joined

# Settings that config.json may omit: defaults of Dinov2Config and Dinov2WithRegistersConfig.
DEFAULTS = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "hidden_size": 768,
    "mlp_ratio": 4.0,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "qkv_bias": True,
    "layerscale_value": 1.0,
    "use_swiglu_ffn": False,
}
_OTHERS = {
    "dinov2": {"patch_size": 14},
    "dinov2_with_registers": {"patch_size": 16, "num_register_tokens": 4},
}
# Settings of the published models' image processors.
IMAGES = {
    "size": {"shortest_edge": 256},
    "crop_size": {"height": 224, "width": 224},
    "image_mean": (0.485, 0.456, 0.406),
    "image_std": (0.229, 0.224, 0.225),
}
SYSTEM = "vit"
IGNORED = (r"(.+\.)?embeddings\.mask_token",)  # from masked-image training
_NOT_MLP = {k: v for k, v in vit.RENAMED.items() if ".attention." in v}
RENAMED = _NOT_MLP | {r"\.mlp\.down_proj\.": ".mlp.weights_out."}


def canonical(name: str) -> str:
    """The name of a tensor in `rows`, also of a file with the names of transformers 5."""
    return vit.renamed(name, RENAMED)


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The folder with the gate and the map beside it as one tensor, which transformers 5 stores
    apart; and no notes for the report."""
    parts = {
        name.replace("gate_proj", "weights_in"): (name, name.replace("gate_proj", "up_proj"))
        for name in found.tensors.shapes
        if ".mlp.gate_proj." in name
    }
    return found._replace(tensors=Joined(found.tensors, parts)) if parts else found, []


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    kind = found.config["model_type"]
    where = found.folder / published.CONFIG
    settings = published.settings(found.config, DEFAULTS | _OTHERS[kind], where)
    settings["intermediate_size"] = hidden_units(
        settings["hidden_size"], settings["mlp_ratio"], settings["use_swiglu_ffn"]
    )
    num_classes = vit.classes(found.tensors.shapes, "classifier.weight")
    config = {
        **vit.fields(found, settings),
        "pool": "cls" if num_classes is None else "cls_mean",
        "num_classes": num_classes,
        "layer_scale": float(settings["layerscale_value"]),
    }
    if settings["use_swiglu_ffn"]:
        config |= {"gated_mlp": True, "activation": "silu"}
    if kind == "dinov2_with_registers":
        config |= {"registers": settings["num_register_tokens"], "position_resize": "antialias"}
    return config


def hidden_units(width: int, ratio: float, gated: bool) -> int:
    """Hidden units of the MLP; if gated, two thirds of them, rounded up to a multiple of 8."""
    units = int(width * ratio)
    return (int(units * 2 / 3) + 7) // 8 * 8 if gated else units


def image_source(found: Published) -> image_processor.Source:
    """Where the settings of the image processor come from."""
    return image_processor.Source("BitImageProcessor", usual=IMAGES)


def rows(model: ViT) -> list[Row]:
    """The rename table of a model."""
    family = "dinov2_with_registers" if model.registers else "dinov2"
    prefix = "" if model.num_classes is None else f"{family}."
    ours, theirs = "transformer/layers", f"{prefix}encoder.layer.{{i}}"
    names = ("mlp.weights_in", "mlp.weights_out") if model.gated_mlp else ("mlp.fc1", "mlp.fc2")
    table = [
        *vit.tower(model, family, names, ("norm1", "norm2")),
        *same(f"{ours}/scale_attention", f"{theirs}.layer_scale1.lambda1"),
        *same(f"{ours}/scale_mlp", f"{theirs}.layer_scale2.lambda1"),
    ]
    if model.gated_mlp:
        table += gate_and_up(f"{ours}/mlp", f"{theirs}.mlp.weights_in")
    if model.registers:
        name = f"{prefix}embeddings.register_tokens"
        table += reshaped("registers", name, (model.registers, -1), (1, model.registers, -1))
    if model.num_classes is not None:
        table += linear("head", "classifier")
    return table


def gate_and_up(ours: str, theirs: str) -> list[Row]:
    """One map [2 · units, in], the gate first -> two of our maps."""
    return [
        Row(
            (f"{ours}/gate/kernel", f"{ours}/up/kernel"),
            (f"{theirs}.weight",),
            lambda x: tuple(part.T for part in np.split(x, 2)),
            lambda gate, up: (np.concatenate([gate.T, up.T]),),
        ),
        Row(
            (f"{ours}/gate/bias", f"{ours}/up/bias"),
            (f"{theirs}.bias",),
            lambda x: tuple(np.split(x, 2)),
            lambda gate, up: (np.concatenate([gate, up]),),
        ),
    ]


def published_config(model: ViT) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published DINOv2 cannot have.
    """
    kind = "dinov2_with_registers" if model.registers else "dinov2"
    sizes = model.sizes
    ratio = round(sizes["mlp_dim"] * (3 / 2 if model.gated_mlp else 1) / sizes["width"])
    vit.check_tower(
        kind,
        model,
        # transformers always resizes the positions of images that are not square, from a square
        image_size=(model.train_size, (model.train_size[0],) * 2),
        pool=(model.pool, "cls" if model.num_classes is None else "cls_mean"),
        pre_logits=(model.pre_logits, None),
        distillation=(model.distillation, "none"),
        registers=(model.registers, model.registers),
        layer_scale=(model.layer_scale is not None, True),
        gated_mlp=(model.gated_mlp, model.gated_mlp),
        mlp_dim=(sizes["mlp_dim"], hidden_units(sizes["width"], ratio, model.gated_mlp)),
        activation=(model.activation, "silu" if model.gated_mlp else model.activation),
    )
    name = "Dinov2WithRegisters" if model.registers else "Dinov2"
    return {
        "model_type": kind,
        "architectures": [vit.architecture(name, model)],
        **vit.published_fields(model),
        **({"hidden_act": "gelu"} if model.gated_mlp else {}),  # the gate has its own activation
        "mlp_ratio": ratio,
        "use_swiglu_ffn": model.gated_mlp,
        "layerscale_value": model.layer_scale,
        **({"num_register_tokens": model.registers} if model.registers else {}),
        **({} if model.registers else {"use_mask_token": False}),
    }


def published_preprocessor(model: ViT, transform: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our models with this image transform."""
    return image_processor.write(model, transform, "BitImageProcessor")
