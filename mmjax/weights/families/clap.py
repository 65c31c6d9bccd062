"""CLAP: HTSAT and RoBERTa (model_type "clap")."""

import inspect
import math
from typing import Any

import numpy as np

from mmjax.data.transforms import chain
from mmjax.data.transforms.clap_steps import clap_input
from mmjax.layers.swin import relative_index
from mmjax.models.bert import BERT
from mmjax.models.clap import CLAP
from mmjax.models.htsat import HTSAT
from mmjax.weights import activations, published, schema
from mmjax.weights.families import bert
from mmjax.weights.layouts import (
    Row,
    batch_counts,
    batch_norm,
    linear,
    merge_heads,
    norm,
    pointwise,
    qkv,
    same,
)
from mmjax.weights.published import Published

SYSTEM = "clap"
IGNORED = (
    r".*\.num_batches_tracked",
    r"text_model\.embeddings\.(position|token_type)_ids",
    r"audio_model\..*\.relative_position_index",
)

# Settings that config.json may omit: defaults of ClapConfig, ClapTextConfig and ClapAudioConfig.
SETTINGS = {
    "projection_dim": 512,
    "logit_scale_init_value": 1 / 0.07,
    "projection_hidden_act": "relu",
}
TEXT = {
    **bert.SETTINGS,
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "pad_token_id": 1,
}
AUDIO = {
    "window_size": 8,
    "num_mel_bins": 64,
    "spec_size": 256,
    "hidden_act": "gelu",
    "patch_size": 4,
    "depths": (2, 2, 6, 2),
    "num_attention_heads": (4, 8, 16, 32),
    "enable_fusion": False,
    "fusion_type": "",
    "patch_embed_input_channels": 1,
    "flatten_patch_embeds": True,
    "patch_embeds_hidden_size": 96,
    "enable_patch_layer_norm": True,
    "qkv_bias": True,
    "mlp_ratio": 4.0,
    "aff_block_r": 4,
    "layer_norm_eps": 1e-5,
}
# Of the feature extractor: defaults of ClapFeatureExtractor, where frequency_min is 0.
FEATURES = {
    "feature_size": 64,
    "sampling_rate": 48_000,
    "hop_length": 480,
    "max_length_s": 10,
    "fft_window_size": 1024,
    "frequency_min": schema.Maybe(0.0),
    "frequency_max": 14_000,
    "truncation": "fusion",
    "padding": "repeatpad",
}


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    path = found.folder / published.CONFIG
    whole = published.settings(found.config, SETTINGS, path)
    text = published.tower(found, TEXT, "text_config")
    pad, scale = text["pad_token_id"], whole["logit_scale_init_value"]
    if scale <= 0:
        raise ValueError(f"'{path}' has logit_scale_init_value {scale}: it must be positive.")
    fields = bert.tower_fields(text, "text_config") | {"position_pad": pad}
    fields["length"] -= pad + 1
    return {
        "name": "clap",
        "embed_dim": whole["projection_dim"],
        "activation": activations.read(whole["projection_hidden_act"], "projection_hidden_act"),
        "logit_scale_init": math.log(scale),
        "audio": _audio_fields(found),
        "text": {**fields, "pool": "pooler", "pooler": True},
    }


def _audio_fields(found: Published) -> dict[str, Any]:
    audio = published.tower(found, AUDIO, "audio_config")
    patch = _side(audio["patch_size"])
    published.check_fixed(
        found._replace(config={**audio, "patch_stride": _side(audio.get("patch_stride", patch))}),
        {"patch_stride": patch, "patch_embed_input_channels": 1, "flatten_patch_embeds": True},
    )
    if audio["enable_fusion"] and audio["fusion_type"] == "channel_map":
        raise ValueError(
            f"'{found.folder / published.CONFIG}' has fusion_type 'channel_map', with which "
            "transformers cannot run its own model either: only attentional fusion can be loaded."
        )
    return {
        "frames": frames(found),
        "mels": audio["num_mel_bins"],
        "image_size": audio["spec_size"],
        "patch_size": patch,
        "width": audio["patch_embeds_hidden_size"],
        "depths": tuple(audio["depths"]),
        "heads": tuple(audio["num_attention_heads"]),
        "window": audio["window_size"],
        "mlp_ratio": audio["mlp_ratio"],
        "activation": activations.read(audio["hidden_act"], "audio_config.hidden_act"),
        "qkv_bias": audio["qkv_bias"],
        "patch_norm": audio["enable_patch_layer_norm"],
        "fusion": audio["enable_fusion"],
        "fusion_reduction": audio["aff_block_r"],
        "norm_epsilon": audio["layer_norm_eps"],
    }


def _side(size: Any) -> Any:
    """A patch or stride as one number where both sides are equal."""
    sides = size if isinstance(size, list | tuple) else [size]
    return sides[0] if sides and all(side == sides[0] for side in sides) else size


def features(found: Published) -> dict[str, Any]:
    """The settings of the feature extractor, with defaults.

    Raises:
      ValueError: a setting of another type, or features that the model does not read.
    """
    where = found.folder / published.PREPROCESSOR
    given = published.settings(found.preprocessor or {}, FEATURES, where)
    fusion = published.tower(found, AUDIO, "audio_config")["enable_fusion"]
    chosen = (found.preprocessor or {}).get("truncation")
    if chosen is not None and (chosen == "fusion") != fusion:
        raise ValueError(
            f"'{where}' has truncation '{chosen}', and the model of config.json has "
            f"enable_fusion {fusion}: they are from different models."
        )
    return given


def frames(found: Published) -> int:
    """Frames of a spectrogram of a published model."""
    given = features(found)
    return 1 + given["max_length_s"] * given["sampling_rate"] // given["hop_length"]


def audio_transform(found: Published) -> str:
    """The chain of transforms from an audio file to the model's input."""
    given = features(found)
    names = ("max_length_s", "feature_size", "sampling_rate", "fft_window_size", "hop_length")
    names += ("frequency_min", "frequency_max")
    fusion = published.tower(found, AUDIO, "audio_config")["enable_fusion"]
    settings = ", ".join(str(given[name] or 0) for name in names)
    return f"clap_input({settings}, fusion={fusion}, padding='{given['padding']}')"


def published_files(pretrained: Any) -> dict[str, Any]:
    """preprocessor_config.json, from the transform of audio."""
    for _, args, kwargs, _ in chain.read(pretrained.audio_transform):
        bound = inspect.signature(clap_input).bind(*args, **kwargs)
        bound.apply_defaults()
        step = bound.arguments
        found = {
            "feature_extractor_type": "ClapFeatureExtractor",
            "processor_class": "ClapProcessor",
            "feature_size": step["mels"],
            "sampling_rate": step["rate"],
            "hop_length": step["hop"],
            "max_length_s": step["seconds"],
            "nb_max_samples": step["seconds"] * step["rate"],
            "fft_window_size": step["window"],
            "nb_frequency_bins": step["window"] // 2 + 1,
            "frequency_min": step["low"],
            "frequency_max": step["high"],
            "truncation": "fusion" if step["fusion"] else "rand_trunc",
            "padding": step["padding"],
            "padding_value": 0.0,
            "return_attention_mask": False,
        }
        return {published.PREPROCESSOR: found}
    return {}


def rows(model: CLAP) -> list[Row]:
    """The rename table of a model."""
    audio, text = model.audio_tower(parent=None), model.text_tower(parent=None)
    return [
        *_audio_rows(audio),
        *_projection("audio"),
        *bert.tower_rows("text", "text_model.", text),
        *_projection("text"),
        *same("logit_scale", "logit_scale_a"),
        *same("logit_scale_text", "logit_scale_t"),
    ]


def _projection(tower: str) -> list[Row]:
    return [
        *linear(f"{tower}_proj_in", f"{tower}_projection.linear1"),
        *linear(f"{tower}_proj", f"{tower}_projection.linear2"),
    ]


def _audio_rows(audio: HTSAT) -> list[Row]:
    theirs, embed = "audio_model.audio_encoder", "audio_model.audio_encoder.patch_embed"
    patch, last = audio.patch_size, len(audio.depths) - 1
    table = [
        *batch_norm("audio/norm_mel", f"{theirs}.batch_norm"),
        *_patches("audio/stem/projection", f"{embed}.proj", patch, patch),
        *norm("audio/norm", f"{theirs}.norm"),
    ]
    if audio.patch_norm:
        table += norm("audio/norm_patches", f"{embed}.norm")
    if audio.fusion:
        table += _patches("audio/crop_stem", f"{embed}.mel_conv2d", patch, 3 * patch)
        for branch, first in (("local", 0), ("global", 1)):  # after a pooling
            fusion = f"{embed}.fusion_model.{branch}_att"
            for part, at in (("down", first), ("up", first + 3)):
                ours = f"audio/fusion/{branch}"
                table += pointwise(f"{ours}_{part}", f"{fusion}.{at}", bias=True)
                table += batch_norm(f"{ours}_norm_{part}", f"{fusion}.{at + 1}")
    for stage, (depth, heads) in enumerate(zip(audio.depths, audio.heads)):
        layer = f"{theirs}.layers.{stage}"
        for i in range(depth):
            block = f"audio/stage{stage}_block{i}"
            table += _block(block, f"{layer}.blocks.{i}", heads, audio.qkv_bias)
        if stage < last:
            merge = f"audio/merge{stage + 1}"
            table += norm(f"{merge}/norm", f"{layer}.downsample.norm")
            table += linear(f"{merge}/reduction", f"{layer}.downsample.reduction", bias=False)
    return table


def _block(ours: str, theirs: str, heads: int, qkv_bias: bool) -> list[Row]:
    attention = f"{theirs}.attention"
    names = [f"{attention}.self.{name}" for name in ("query", "key", "value")]
    return [
        *norm(f"{ours}/norm_attention", f"{theirs}.layernorm_before"),
        *same(f"{ours}/position_bias", f"{attention}.self.relative_position_bias_table"),
        *qkv(f"{ours}/attention/qkv", names, heads, qkv_bias),
        *merge_heads(f"{ours}/attention/out", f"{attention}.output.dense", heads),
        *norm(f"{ours}/norm_mlp", f"{theirs}.layernorm_after"),
        *linear(f"{ours}/mlp/up", f"{theirs}.intermediate.dense"),
        *linear(f"{ours}/mlp/down", f"{theirs}.output.dense"),
    ]


def _patches(ours: str, theirs: str, height: int, width: int) -> list[Row]:
    """A convolution's `weight` [out, 1, height, width] -> `kernel` [height · width, out]."""

    def read(x):
        return (x.reshape(len(x), -1).T,)

    def write(x):
        return (x.T.reshape(-1, 1, height, width),)

    row = Row((f"{ours}/kernel",), (f"{theirs}.weight",), read, write)
    return [row, *same(f"{ours}/bias", f"{theirs}.bias")]


def buffers(model: CLAP) -> dict[str, np.ndarray]:
    """Tensors that transformers reports as missing otherwise."""
    found = batch_counts(rows(model))
    for row in rows(model):
        for name in row.theirs:
            if name.endswith(".relative_position_bias_table"):
                index = relative_index(model.audio_tower(parent=None).window)
                found[name.replace("bias_table", "index")] = index
    text = model.text_tower(parent=None)
    positions = text.length + text.position_pad + 1
    ids = "text_model.embeddings"
    found[f"{ids}.position_ids"] = np.arange(positions)[None]
    found[f"{ids}.token_type_ids"] = np.zeros((1, positions), np.int64)
    return found


def published_config(model: CLAP) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published CLAP cannot have.
    """
    audio, text = model.audio_tower(parent=None), model.text_tower(parent=None)
    published.check_settings(
        "clap",
        {
            "text.position_pad is set": (text.position_pad is not None, True),
            "text.pool": (text.pool, "pooler"),
            "text.dense": (tuple(text.dense), ()),
        },
    )
    activation = activations.write(model.activation)
    return {
        "model_type": "clap",
        "architectures": ["ClapModel"],
        "projection_dim": model.embed_dim,
        "projection_hidden_act": activation,
        "logit_scale_init_value": math.exp(model.logit_scale_init),
        "audio_config": {"model_type": "clap_audio_model", **_audio_config(audio)},
        "text_config": {"model_type": "clap_text_model", **_text_config(text)},
    }


def _text_config(text: BERT) -> dict[str, Any]:
    return {
        **bert.published_tower(text),
        "max_position_embeddings": text.length + text.position_pad + 1,
        "pad_token_id": text.position_pad,
    }


def _audio_config(audio: HTSAT) -> dict[str, Any]:
    return {
        "window_size": audio.window,
        "num_mel_bins": audio.mels,
        "spec_size": audio.image_size,
        "hidden_act": activations.write(audio.activation),
        "patch_size": audio.patch_size,
        "patch_stride": [audio.patch_size] * 2,
        "depths": list(audio.depths),
        "num_attention_heads": list(audio.heads),
        "num_hidden_layers": len(audio.depths),
        "hidden_size": audio.width * 2 ** (len(audio.depths) - 1),
        "enable_fusion": audio.fusion,
        "fusion_type": "aff_2d" if audio.fusion else None,
        "patch_embeds_hidden_size": audio.width,
        "enable_patch_layer_norm": audio.patch_norm,
        "qkv_bias": audio.qkv_bias,
        "mlp_ratio": audio.mlp_ratio,
        "aff_block_r": audio.fusion_reduction,
        "layer_norm_eps": audio.norm_epsilon,
    }
