"""OWL-ViT and OWLv2 in the layout of `transformers` (model types "owlvit" and "owlv2")."""

from typing import Any

from mmjax.data.transforms import chain
from mmjax.models.owlvit import OWLViT
from mmjax.models.text import TextTransformer
from mmjax.models.vit import ViT
from mmjax.weights import encoder_config, image_processor, published
from mmjax.weights.families import clip
from mmjax.weights.layouts import Row, linear, norm
from mmjax.weights.published import Published

# Settings that config.json may omit: defaults of OwlViTConfig; OWLv2's patches are smaller.
TEXT = {**clip.TEXT, "max_position_embeddings": 16}
VISION = {**clip.VISION, "image_size": 768}
PATCH = {"owlvit": 32, "owlv2": 16}
PROCESSORS = {"owlvit": "OwlViTImageProcessor", "owlv2": "Owlv2ImageProcessor"}
SYSTEM = "owlvit"
# Buffers of older files.
IGNORED = (r"box_bias", r"owl(vit|v2)\.(text|vision)_model\.embeddings\.position_ids")


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    kind = found.config["model_type"]
    text = published.tower(found, TEXT, "text_config")
    vision = published.tower(found, VISION | {"patch_size": PATCH[kind]}, "vision_config")
    width = clip.embed_dim(found, 512)
    if text["hidden_size"] != width:
        raise ValueError(
            f"'{found.folder / published.CONFIG}' has projection_dim {width} and texts of width "
            f"{text['hidden_size']}, which an {kind} compares with each other: get it again."
        )
    return {
        "name": "owlvit",
        "embed_dim": width,
        "image": {**clip.image_fields(vision, found), "pool": "cls_tokens"},
        "text": {
            **encoder_config.read(text, "text_config"),
            "vocab_size": text["vocab_size"],
            "length": text["max_position_embeddings"],
        },
        "objectness": kind == "owlv2",
    }


def image_source(found: Published) -> image_processor.Source:
    """Where the settings of the image processor come from."""
    return image_processor.Source(PROCESSORS[found.config["model_type"]], "vision_config")


def kind_of(model: OWLViT) -> str:
    """The model_type of a model."""
    return "owlv2" if model.objectness else "owlvit"


def rows(model: OWLViT) -> list[Row]:
    """The rename table of a model."""

    def within(name):
        return f"{kind_of(model)}.{name.replace('pre_layrnorm', 'pre_layernorm')}"

    towers = [row._replace(theirs=tuple(map(within, row.theirs))) for row in clip.rows(model)]
    heads = ("box_head", "objectness_head") if model.objectness else ("box_head",)
    return [
        *towers,
        *norm("merge_norm", "layer_norm"),
        *linear("class_head/embed", "class_head.dense0"),
        *linear("class_head/shift", "class_head.logit_shift"),
        *linear("class_head/scale", "class_head.logit_scale"),
        *(
            row
            for head in heads
            for i, layer in enumerate(("first", "second", "last"))
            for row in linear(f"{head}/{layer}", f"{head}.dense{i}")
        ),
    ]


def published_config(model: OWLViT) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published OWL-ViT cannot have.
    """
    kind = kind_of(model)
    image, text = clip.towers(model, kind, ViT, TextTransformer)
    published.check_settings(
        kind,
        {
            **clip.plain(model, image),
            "image.pool": (image.pool, "cls_tokens"),
            "text.causal": (text.causal, True),
            "text.pool": (text.pool, "end"),
            "text.width": (text.sizes["width"], model.embed_dim),
        },
    )
    names = {"owlvit": "OwlViTForObjectDetection", "owlv2": "Owlv2ForObjectDetection"}
    return {
        **clip.published_fields(model, image, kind, names[kind]),
        "text_config": {
            **encoder_config.write(text),
            "model_type": f"{kind}_text_model",
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.length,
        },
    }


def published_preprocessor(model: OWLViT, transform: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our models with this image transform.

    Raises:
      ValueError: an OWLv2 whose images are stretched, or an OWL-ViT whose images are padded.
    """
    kind = kind_of(model)
    names = [name for name, *_ in chain.read(transform)]
    if ("resize_smoothed" in names) != (kind == "owlv2"):
        raise ValueError(
            f"The images of '{transform}' are not resized as those of a published '{kind}': save "
            f"the model with {'pad_square | resize_smoothed' if kind == 'owlv2' else 'resize'}."
        )
    return image_processor.write(model.image_tower(parent=None), transform, PROCESSORS[kind])


def for_saving(pretrained: Any) -> Any:
    """The model with an end token of the largest id, at which `transformers` pools."""
    words = pretrained.tokenizer
    if words is None or words.eos_id == pretrained.config["text"]["vocab_size"] - 1:
        return pretrained
    return clip.with_largest_end(pretrained)
