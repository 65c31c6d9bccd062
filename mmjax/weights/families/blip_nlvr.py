"""BLIP's model of two images under the names of the original code (salesforce/BLIP).

Its checkpoint is a pickle, and holds no settings. A folder of ours has

    config.json         {"model_type": "blip_nlvr"}, settings named as those of ALBEF's image
                        encoder (`image_res`, `vision_width`, ...), `enc_token_id`, and
                        `med_config`: the content of configs/med_config.json
    model.safetensors   the checkpoint's "model", saved by safetensors' save_file
    tokenizer           the files of bert-base-uncased
"""

import re
from typing import Any

from mmjax.models.blip_nlvr import BLIPNLVR
from mmjax.weights import published
from mmjax.weights.families import albef, bert
from mmjax.weights.layouts import Row, linear, merge_heads, norm, same, split_heads
from mmjax.weights.published import CONFIG, Published
from mmjax.weights.tensor_file import Renamed

SYSTEM = "blip_nlvr"
read_tokenizer = albef.read_tokenizer  # of texts cleaned as in the original
IGNORED = (r"text_encoder\.embeddings\.position_ids",)
SETTINGS = {k: x for k, x in albef.SETTINGS.items() if k not in ("embed_dim", "mask_token_id")}
SETTINGS |= {"image_res": 384, "enc_token_id": 30523}
BERT = bert.SETTINGS | {"vocab_size": 30524}
_LAYER = re.compile(r"text_encoder\.encoder\.layer\.(\d+)\.")
_MERGE = "crossattention.output.merge_layer"


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The folder with the layers that merge numbered from 0; no notes."""
    first = _averaging(found)

    def rename(name: str) -> str:
        layer = _LAYER.match(name)
        if layer is None or int(layer[1]) < first:
            return name
        return f"text_encoder.merging.layer.{int(layer[1]) - first}.{name[layer.end() :]}"

    return found._replace(tensors=Renamed(found.tensors, rename)), []


def _averaging(found: Published) -> int:
    """The number of layers before those that merge."""
    merging = (_LAYER.match(name) for name in found.tensors.shapes if _MERGE in name)
    depth = published.tower(found, BERT, "med_config")["num_hidden_layers"]
    return min((int(layer[1]) for layer in merging if layer), default=depth)


def published_name(name: str, model: BLIPNLVR) -> str:
    """The inverse of `prepare`."""
    text = model.text_encoder(parent=None)
    first = text.depth - text.merge_depth
    return re.sub(
        r"\.merging\.layer\.(\d+)", lambda found: f".encoder.layer.{int(found[1]) + first}", name
    )


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    path, settings = found.folder / CONFIG, _settings(found)
    text = published.tower(found, BERT, "med_config")
    merging = sum(
        name.startswith("text_encoder.merging") and f"{_MERGE}.weight" in name
        for name in found.tensors.shapes
    )
    fields = bert.tower_fields(text, f"{path}: med_config")
    del fields["segments"]  # the file names them, and has no table
    return {
        "name": SYSTEM,
        "image": albef.image_fields(settings),
        "text": {**fields, "merge_depth": merging},
        "encode_token": settings["enc_token_id"],
    }


def _settings(found: Published) -> dict[str, Any]:
    return published.settings(found.config, SETTINGS, found.folder / CONFIG)


def transform(found: Published) -> str:
    """The images of the original's evaluation: squashed to a square (data/__init__.py)."""
    size = _settings(found)["image_res"]
    return f"decode | resize(({size}, {size}), 'bicubic')"


def rows(model: BLIPNLVR) -> list[Row]:
    """The rename table of a model."""
    text, embeddings = model.text_encoder(parent=None), "text_encoder.embeddings"
    table = [
        *albef.image_rows(model.image_tower(parent=None)),
        *same("text_encoder/embed/embedding", f"{embeddings}.word_embeddings.weight"),
        *same("text_encoder/embed/position/table", f"{embeddings}.position_embeddings.weight"),
        *norm("text_encoder/embed/norm_embedding", f"{embeddings}.LayerNorm"),
        *linear("head_inner", "cls_head.0"),
        *linear("head", "cls_head.2"),
    ]
    if text.merge_depth < text.depth:
        layers = "text_encoder/averaging", "text_encoder.encoder.layer.{i}"
        table += [*albef.layer_rows(*layers, text.heads), *_cross(*layers, text.heads)]
    if text.merge_depth:
        ours, theirs = layers = "text_encoder/merging", "text_encoder.merging.layer.{i}"
        table += [*albef.layer_rows(*layers, text.heads), *_cross(*layers, text.heads)]
        table += linear(f"{ours}/cross/attention/merge", f"{theirs}.{_MERGE}")
    return table


def _cross(ours: str, theirs: str, heads: int) -> list[Row]:
    """The cross-attention of a layer to both images."""
    ours, theirs, found = f"{ours}/cross", f"{theirs}.crossattention", []
    for i, name in enumerate(("first", "second")):
        attention = f"{ours}/attention/{name}"
        found += split_heads(f"{attention}/query", f"{theirs}.self{i}.query", heads)
        found += albef.key_value(f"{attention}/key_value", f"{theirs}.self{i}", heads)
        found += merge_heads(f"{attention}/out", f"{theirs}.output.dense{i}", heads)
    return [*found, *norm(f"{ours}/norm_attention", f"{theirs}.output.LayerNorm")]


def published_config(model: BLIPNLVR) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that the original's model cannot have.
    """
    image, text = model.image_tower(parent=None), model.text_encoder(parent=None)
    albef.check_image(SYSTEM, image)
    token = model.encode_token
    published.check_settings(
        SYSTEM, {"num_classes": (model.num_classes, 2), "encode_token": (token is not None, True)}
    )
    return {
        "model_type": SYSTEM,
        **albef.published_image(image),
        "enc_token_id": token,
        "med_config": {
            **bert.published_text(text),
            "encoder_width": image.sizes["width"],
        },
    }
