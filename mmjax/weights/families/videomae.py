"""VideoMAE in the layout of `transformers`: its encoder, with a head or its decoder."""

from typing import Any

from mmjax.models.video_vit import VideoViT
from mmjax.weights import encoder_config, image_processor, published
from mmjax.weights.families import vit, vivit
from mmjax.weights.layouts import Row, linear, norm
from mmjax.weights.published import Published

# Settings that config.json may omit: defaults of VideoMAEConfig in transformers 5.23.
DEFAULTS = {
    **encoder_config.DEFAULTS,
    "image_size": 224,
    "patch_size": 16,
    "num_frames": 16,
    "tubelet_size": 2,
    "qv_bias": True,
    "use_mean_pooling": True,
    "decoder_hidden_size": 384,
    "decoder_num_hidden_layers": 4,
    "decoder_num_attention_heads": 6,
    "decoder_intermediate_size": 1536,
}
DECODER = {
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_dim": "intermediate_size",
}
SYSTEM = "video_vit"
IGNORED = (r"position_embeddings",)  # fixed ones
_WRAPPED = "videomae."  # of a model with a head or a decoder
# Names of transformers 5, which it writes with save_original_format=False.
RENAMED = {
    r"\.attention\.query\.bias$": ".attention.q_bias",
    r"\.attention\.value\.bias$": ".attention.v_bias",
}


def canonical(name: str) -> str:
    """The name of a tensor in `rows`: those of the encoder alone have no prefix."""
    name, own = vit.renamed(name, RENAMED), ("embeddings.", "encoder.", "layernorm.")
    return f"{_WRAPPED}{name}" if name.startswith(own) else name


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    settings = published.settings(found.config, DEFAULTS, found.folder / published.CONFIG)
    if "qkv_bias" in found.config:  # older files
        settings["qv_bias"] = found.config["qkv_bias"]
    patch = settings["patch_size"]
    patch = (patch, patch) if isinstance(patch, int) else tuple(patch)
    shapes, mean = found.tensors.shapes, settings["use_mean_pooling"]
    classes = vit.classes(shapes, "classifier.weight")
    head = "features" if classes is not None else "none"
    decoder = {}
    if "mask_token" in shapes:
        decoder = {name: settings[f"decoder_{theirs}"] for name, theirs in DECODER.items()}
    return {
        **vivit.fields(found, settings),
        "tubelet": (settings["tubelet_size"], *patch),
        "pool": "mean" if mean else "first",
        "position": "sinusoids",
        "final_norm": head if mean else "tokens",
        "qkv_bias": settings["qv_bias"],
        "key_bias": False,
        "num_classes": classes,
        **({"decoder": decoder} if decoder else {}),
    }


def image_source(found: Published) -> image_processor.Source:
    """Where the settings of the image processor come from."""
    return image_processor.Source("VideoMAEImageProcessor")


def rows(model: VideoViT) -> list[Row]:
    """The rename table of a model."""
    table = [
        *vivit.tubelets(model, f"{_WRAPPED}embeddings.patch_embeddings.projection"),
        *vivit.blocks(model, f"{_WRAPPED}encoder.layer.{{i}}"),
    ]
    if model.final_norm != "none":
        tokens = model.final_norm == "tokens"
        table += norm("norm", f"{_WRAPPED}layernorm" if tokens else "fc_norm")
    if model.decoder is not None:
        heads = model.pixel_decoder(parent=None).heads
        table += [
            *linear("decoder/from_encoder", "encoder_to_decoder", bias=False),
            Row(("decoder/mask_token",), ("mask_token",), _first, _one),
            *vivit.blocks(model, "decoder.decoder_layers.{i}", "decoder/", heads),
            *norm("decoder/norm", "decoder.norm"),
            *linear("decoder/head", "decoder.head"),
        ]
    return table + (linear("head", "classifier") if model.num_classes is not None else [])


def _first(x):
    """[1, 1, D] -> [D]."""
    return (x[0, 0],)


def _one(x):
    """[D] -> [1, 1, D]."""
    return (x[None, None],)


def published_name(name: str, model: VideoViT) -> str:
    """The name in the files: of the encoder alone there is no prefix."""
    wrapped = model.num_classes is not None or model.decoder is not None
    return name if wrapped else name.removeprefix(_WRAPPED)


def published_config(model: VideoViT) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published VideoMAE cannot have.
    """
    mean, classes = model.pool == "mean", model.num_classes is not None
    head = "features" if classes else "none"
    time, *patch = model.tubelet
    published.check_settings(
        "videomae",
        {
            **vivit.plain(model),
            "position": (model.position, "sinusoids"),
            "pool": (model.pool, "mean" if mean else "first"),
            "final_norm": (model.final_norm, head if mean else "tokens"),
            "head_epsilon": (model.head_epsilon, 1e-5),
            "key_bias": (model.key_bias, False),
            "pre_logits": (model.pre_logits, None),
        },
    )
    kind, decoder = "ForVideoClassification" if classes else "Model", {}
    if model.decoder is not None:
        made, kind = model.pixel_decoder(parent=None), "ForPreTraining"
        decoder = {f"decoder_{theirs}": getattr(made, name) for name, theirs in DECODER.items()}
    return {
        "model_type": "videomae",
        "architectures": [f"VideoMAE{kind}"],
        **decoder,
        **vivit.published_fields(model),
        "patch_size": patch[0] if patch[0] == patch[1] else patch,
        "tubelet_size": time,
        "qv_bias": model.qkv_bias,
        "use_mean_pooling": mean,
    }


def published_preprocessor(model: VideoViT, transform: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our models with this transform of frames."""
    return image_processor.write(model, transform, "VideoMAEImageProcessor")
