"""U-Nets of diffusers without a text (`_class_name` "UNet2DModel")."""

from typing import Any

from mmjax.models.diffusion import Diffusion
from mmjax.weights import denoiser, published, schema, unet_table
from mmjax.weights.layouts import Row
from mmjax.weights.published import Published

SYSTEM = "diffusion"
LAYOUT = published.DIFFUSERS
IGNORED = ()
DROPOUT = "condition_dropout"  # our own setting, which diffusers passes over

prepare = denoiser.prepare


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    where, config = str(found.folder / published.CONFIG), found.config
    if config.get("class_embed_type") is not None:
        raise ValueError(
            f"'{where}' has class_embed_type '{config['class_embed_type']}'; classes come from a "
            "table in ours (num_class_embeds)."
        )
    backbone = {"kind": "unet"} | unet_table.fields(config, where)
    rows, dropout = config.get("num_class_embeds"), config.get(DROPOUT, 0.0)
    schema.check("num_class_embeds", rows, schema.Maybe(1000), where)
    classes = rows - 1 if rows and dropout else rows
    return denoiser.fields(found, backbone, classes, dropout)


def rows(model: Diffusion) -> list[Row]:
    """The rename table of a model."""
    return unet_table.rows(model.make_backbone(parent=None), "backbone/")


def published_config(model: Diffusion) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: a backbone that is no U-Net, or a noise schedule that diffusers does not have.
    """
    if model.backbone["kind"] != "unet":
        raise ValueError("A UNet2DModel of diffusers is a U-Net, and this backbone is none.")
    denoiser.scheduler_of(model)
    settings = unet_table.config_of(model.make_backbone(parent=None)) | denoiser.config_of(model)
    dropout = model.condition_dropout
    return settings | ({DROPOUT: dropout} if dropout else {})


def published_files(pretrained: Any) -> dict[str, Any]:
    """The noise schedule, in a file of its own."""
    return {str(denoiser.SCHEDULER): denoiser.scheduler_of(pretrained.model)}
