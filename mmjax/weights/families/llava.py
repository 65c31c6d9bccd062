"""LLaVA in the layout of `transformers` (model_type "llava"): a CLIP, or a SigLIP without its
pooling head, a projector of two layers, and a Llama-style decoder."""

import re
from collections.abc import Mapping
from typing import Any

from mmjax.models.language import LanguageModel
from mmjax.models.llava import Llava
from mmjax.models.vit import ViT
from mmjax.weights import activations, head, image_processor, published, schema
from mmjax.weights.families import clip, llama, siglip
from mmjax.weights.layouts import Row, linear
from mmjax.weights.published import Published

SYSTEM = "llava"
read_tokenizer, read_generation = llama.read_tokenizer, llama.read_generation
IGNORED = (r"vision_model\.embeddings\.position_ids", *llama.IGNORED)
IMAGE = "<image>"
# Settings that config.json may omit: defaults of LlavaConfig.
SETTINGS = {
    "image_token_index": 32000,
    "projector_hidden_act": "gelu",
    "vision_feature_layer": None,
    "vision_feature_select_strategy": "default",
    "multimodal_projector_bias": True,
}
FEATURE_LAYER = -2
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
CLIP, SIGLIP = "clip_vision_model", "siglip_vision_model"
PROCESSORS = {CLIP: "CLIPImageProcessor", SIGLIP: "SiglipImageProcessor"}
# Names of files, in the order in which they are tried, and those in `rows`.
NAMES = (
    (r"(model\.)?language_model\.lm_head\.", "lm_head."),
    (r"(model\.)?language_model\.(model\.)?", "model."),
    (r"(model\.)?vision_tower\.(vision_model\.)?", "vision_model."),
    (r"model\.multi_modal_projector\.", "multi_modal_projector."),
)


def canonical(name: str) -> str:
    """The name of a tensor in `rows`: files of the hub, of transformers 5, and of models that were
    built from a config there, differ in their prefixes."""
    for pattern, prefix in NAMES:
        if found := re.match(pattern, name):
            return prefix + name[found.end() :]
    return name


def published_name(name: str, model: Llava) -> str:
    """The inverse of `canonical`: as in files of the hub."""
    del model
    if name.startswith("vision_model."):
        return f"vision_tower.{name}"
    return name if name.startswith("multi_modal_projector.") else f"language_model.{name}"


def prepare(found: Published) -> tuple[Published, list[str]]:
    """A folder whose text_config has the `model_type` and the head of its decoder, and notes."""
    path = found.folder / published.CONFIG
    text = published.section(found.config, "text_config", path)
    tied = any(bool(x.get(head.TIED)) for x in (found.config, text))
    text = {"model_type": "llama", **text, head.TIED: tied}
    inner, notes = head.resolve(found._replace(config=text), llama.HEAD)
    config = found.config | {"text_config": inner.config, head.TIED: inner.config[head.TIED]}
    return found._replace(config=config, tensors=inner.tensors), notes


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    path = found.folder / published.CONFIG
    given = dict(found.config)
    given.setdefault("image_token_index", given.get("image_token_id"))  # of some transformers 5
    s = published.settings(given, SETTINGS, path)
    layer = FEATURE_LAYER if s["vision_feature_layer"] is None else s["vision_feature_layer"]
    if not isinstance(layer, int) or isinstance(layer, bool):
        raise ValueError(
            f"'{path}' has vision_feature_layer {layer}; only models that read one layer can be "
            "loaded."
        )
    whole = s["vision_feature_select_strategy"] == "full"
    return {
        "name": "llava",
        "image": image_fields(found, layer, whole),
        "projector": {
            "kind": "mlp",
            "activation": activations.read(s["projector_hidden_act"], "projector_hidden_act"),
            "use_bias": s["multimodal_projector_bias"],
        },
        "text": text_fields(found),
        "image_token": s["image_token_index"],
        "class_feature": whole and vision_kind(found) == CLIP,
    }


def text_fields(found: Published) -> dict[str, Any]:
    """Fields of `TextDecoder` of a folder that `prepare` has returned.

    Raises:
      ValueError: a decoder of another family.
    """
    kind = found.config["text_config"]["model_type"]
    if not isinstance(kind, str) or kind not in llama.BARE:
        raise ValueError(
            f"'{found.folder / published.CONFIG}' has a decoder of type '{kind}'; "
            f"{', '.join(llama.BARE)} can be loaded."
        )
    return llama.model_config(found._replace(config=found.config["text_config"]))["text"]


def vision_kind(found: Published) -> str:
    """The `model_type` of the image tower."""
    path = found.folder / published.CONFIG
    section = published.section(found.config, "vision_config", path)
    return schema.check("model_type", section.get("model_type", CLIP), CLIP, path)


def image_fields(found: Published, layer: int, whole: bool) -> dict[str, Any]:
    """Fields of `ViT` that gives the tokens of a layer.

    Raises:
      ValueError: another tower, one with a pooling head, or one whose first patch is left out.
    """
    kind, path = vision_kind(found), found.folder / published.CONFIG
    if kind not in PROCESSORS:
        raise ValueError(
            f"'{path}' has an image tower of type '{kind}'; {' and '.join(PROCESSORS)} can be "
            "loaded."
        )
    if kind == CLIP:
        vision = published.tower(found, {**clip.VISION, **VISION}, "vision_config")
        fields = {**clip.image_fields(vision, found), "class_token": True}
    else:
        vision = published.tower(found, siglip.VISION, "vision_config")
        if vision["vision_use_head"] or not whole:
            raise ValueError(
                f"'{path}' has a SigLIP with vision_use_head {vision['vision_use_head']} and "
                f"vision_feature_select_strategy '{'full' if whole else 'default'}'; false and "
                "'full' can be loaded."
            )
        fields = siglip.image_fields(vision, found, head=False)
    return {**fields, "pool": "all", "feature_layer": layer}


def image_source(found: Published) -> image_processor.Source:
    """Where the settings of the image processor come from."""
    kind = PROCESSORS.get(vision_kind(found), PROCESSORS[CLIP])
    return image_processor.Source(kind, "vision_config")


def rows(model: Llava) -> list[Row]:
    """The rename table of a model."""
    tower, bias = model.image_tower(parent=None), model.project(parent=None).use_bias
    return [
        *(clip.image_rows(tower) if tower.class_token else siglip.headless_rows(tower)),
        *linear("projector/inner", "multi_modal_projector.linear_1", bias),
        *linear("projector/out", "multi_modal_projector.linear_2", bias),
        *llama.rows(model),
    ]


def published_config(model: Llava) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published LLaVA cannot have.
    """
    tower, projector = model.image_tower(parent=None), model.project(parent=None)
    published.check_settings("llava", {"image.kind": (type(tower).__name__, ViT.__name__)})
    kind = CLIP if tower.class_token else SIGLIP
    theirs = {CLIP: clip, SIGLIP: siglip}[kind].plain_image(tower)
    theirs |= {"pool": (tower.pool, "all"), "class_token": (tower.class_token, kind == CLIP)}
    layer = tower.feature_layer
    published.check_settings(
        "llava",
        {
            **{f"image.{name}": pair for name, pair in theirs.items()},
            "image.feature_layer is set": (layer is not None, True),
            "projector.kind": (projector.kind, "mlp"),
            "projector.shuffle": (projector.shuffle, 1),
            "prefix": (model.prefix, False),
        },
    )
    return {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "image_token_index": model.image_token,
        "image_seq_length": model.image_length,
        "projector_hidden_act": activations.write(projector.activation),
        "multimodal_projector_bias": projector.use_bias,
        "vision_feature_layer": layer,
        "vision_feature_select_strategy": _strategy(model),
        **published_text(model),
        "vision_config": {
            **clip.published_image(tower),
            "model_type": kind,
            **({} if kind == CLIP else {"vision_use_head": False}),
        },
    }


def published_text(model: Llava) -> dict[str, Any]:
    """The settings of config.json of the decoder."""
    text = llama.published_config(LanguageModel(model.text))
    return {"text_config": text, head.TIED: text[head.TIED]}


def _strategy(model: Llava) -> str:
    """vision_feature_select_strategy."""
    whole = model.class_feature or not model.image_tower(parent=None).class_token
    return "full" if whole else "default"


def published_preprocessor(model: Llava, transform: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our models with this image transform."""
    tower = model.image_tower(parent=None)
    kind = CLIP if tower.class_token else SIGLIP
    return image_processor.write(tower, transform, PROCESSORS[kind])


def published_files(pretrained: Any) -> dict[str, Mapping[str, Any]]:
    """processor_config.json, by which `transformers` expands the token of an image."""
    model = pretrained.model
    tower = model.image_tower(parent=None)
    settings = {
        "processor_class": "LlavaProcessor",
        "image_token": IMAGE,
        "patch_size": tower.sizes["patch_size"],
        "num_additional_image_tokens": int(tower.class_token),
        "vision_feature_select_strategy": _strategy(model),
    }
    return {published.PROCESSOR: settings}
