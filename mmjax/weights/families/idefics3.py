"""Idefics3 and SmolVLM in the layout of `transformers`: a SigLIP without its pooling head, pixel
shuffle with one linear map, and a Llama-style decoder."""

from typing import Any

from mmjax.models.llava import Llava
from mmjax.models.vit import ViT
from mmjax.weights import image_processor, published
from mmjax.weights.families import clip, llama, llava, siglip
from mmjax.weights.layouts import Row, linear
from mmjax.weights.published import Published

SYSTEM = "llava"
prepare = llava.prepare
read_tokenizer, read_generation = llama.read_tokenizer, llama.read_generation
IGNORED = llama.IGNORED
# Settings that config.json may omit: defaults of Idefics3Config and Idefics3VisionConfig.
SETTINGS = {"image_token_id": 128_257, "scale_factor": 2}
VISION = {
    "hidden_size": 1152,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "vision_use_head": False,
}
PROCESSORS = {"idefics3": "Idefics3ImageProcessor", "smolvlm": "SmolVLMImageProcessor"}
# Around an image, and before each of its tiles.
AROUND, GLOBAL, TILE = "<fake_token_around_image>", "<global-img>", "<row_{row}_col_{column}>"
PLACES = {"start": AROUND + GLOBAL, "end": AROUND, "tile": AROUND + TILE}


def canonical(name: str) -> str:
    """The name of a tensor in `rows`."""
    for theirs, ours in (("model.text_model.", "model."), ("model.", "")):
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def published_name(name: str, model: Llava) -> str:
    """The inverse of `canonical`."""
    del model
    if name.startswith("lm_head."):
        return name
    inside = name.removeprefix("model.")
    return f"model.{name}" if inside == name else f"model.text_model.{inside}"


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    s = published.settings(found.config, SETTINGS, found.folder / published.CONFIG)
    vision = published.tower(found, VISION, "vision_config")
    return {
        "name": "llava",
        "image": siglip.image_fields(vision, found, head=False),
        "projector": {"kind": "linear", "use_bias": False, "shuffle": s["scale_factor"]},
        "text": llava.text_fields(found),
        "image_token": s["image_token_id"],
        "places": PLACES,
        "lock_image": False,
    }


def image_source(found: Published) -> image_processor.Source:
    """Where the settings of the image processor come from."""
    return image_processor.Source(PROCESSORS[found.config["model_type"]], "vision_config")


def rows(model: Llava) -> list[Row]:
    """The rename table of a model."""
    return [
        *siglip.headless_rows(model.image_tower(parent=None)),
        *linear("projector/out", "connector.modality_projection.proj", bias=False),
        *llama.rows(model),
    ]


def published_config(model: Llava) -> dict[str, Any]:
    """config.json for one of our models: of a SmolVLM.

    Raises:
      ValueError: settings that a published SmolVLM cannot have.
    """
    tower, projector = model.image_tower(parent=None), model.project(parent=None)
    published.check_settings("smolvlm", {"image.kind": (type(tower).__name__, ViT.__name__)})
    theirs = siglip.plain_image(tower) | {"pool": (tower.pool, "none")}
    published.check_settings(
        "smolvlm",
        {
            **{f"image.{name}": pair for name, pair in theirs.items()},
            "projector.kind": (projector.kind, "linear"),
            "projector.use_bias": (projector.use_bias, False),
            "prefix": (model.prefix, False),
        },
    )
    return {
        "model_type": "smolvlm",
        "architectures": ["SmolVLMForConditionalGeneration"],
        "image_token_id": model.image_token,
        "scale_factor": projector.shuffle,
        **llava.published_text(model),
        "vision_config": {**clip.published_image(tower), "model_type": "smolvlm_vision"},
    }


def published_preprocessor(model: Llava, transform: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our models with this image transform."""
    return image_processor.write(model.image_tower(parent=None), transform, PROCESSORS["smolvlm"])


def published_files(pretrained: Any) -> dict[str, Any]:
    """processor_config.json, by which `transformers` expands the token of an image."""
    settings = {"processor_class": "SmolVLMProcessor"}
    settings["image_seq_len"] = pretrained.model.image_length
    return {published.PROCESSOR: settings}
