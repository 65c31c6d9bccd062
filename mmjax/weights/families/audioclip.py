"""AudioCLIP (model_type "audioclip"): a folder with its state dict as model.safetensors.

AudioCLIP is published as a pickle, which is never read here: write `torch.load(...)` by
`safetensors.torch.save_file`, beside a config.json with `{"model_type": "audioclip"}` and the
arguments of its class, where they are not the defaults.
"""

from typing import Any

import numpy as np

from mmjax.models.audioclip import AudioCLIP
from mmjax.models.esresnext import ESResNeXt, blackman_harris
from mmjax.models.resnet import ModifiedResNet
from mmjax.models.text import TextTransformer
from mmjax.weights import published
from mmjax.weights.families import clip_resnet, open_clip
from mmjax.weights.layouts import (
    Row,
    batch_counts,
    batch_norm,
    convolution,
    linear,
    pointwise,
    same,
)
from mmjax.weights.published import Published

SYSTEM = "audioclip"
IGNORED = (r".*\.num_batches_tracked", r"audio\.window", r"input_resolution|context_length")
IGNORED += ("vocab_size",)

# Defaults of the class AudioCLIP (AndreyGuzhov/AudioCLIP, model/audioclip.py).
SETTINGS = {
    "embed_dim": 1024,
    "image_resolution": 224,
    "vision_layers": (3, 4, 6, 3),
    "vision_width": 64,
    "context_length": 77,
    "vocab_size": 49408,
    "transformer_width": 512,
    "transformer_heads": 8,
    "transformer_layers": 12,
    "n_fft": 2048,
    "hop_length": 561,
    "win_length": 1654,
    "apply_attention": True,
}
FIXED = {"window": "blackmanharris", "normalized": True, "onesided": True}
FIXED |= {"spec_height": -1, "spec_width": -1, "vision_patch_size": None}
RATE, SECONDS = 44_100, 5  # of its protocols


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    given = published.settings(found.config, SETTINGS, found.folder / published.CONFIG)
    published.check_fixed(found, FIXED)
    vision = {"layers": given["vision_layers"], "width": given["vision_width"]}
    vision |= {"image_size": given["image_resolution"]}
    width = given["transformer_width"]
    return {
        "name": "audioclip",
        "embed_dim": given["embed_dim"],
        "image": clip_resnet.fields(vision, given["embed_dim"]),
        "text": {
            "width": width,
            "depth": given["transformer_layers"],
            "heads": given["transformer_heads"],
            "mlp_dim": 4 * width,
            "vocab_size": given["vocab_size"],
            "length": given["context_length"],
            "activation": "quick_gelu",
            "norm_epsilon": 1e-5,
        },
        "audio": {
            "features": given["embed_dim"],
            "samples": RATE * SECONDS,
            "fft": given["n_fft"],
            "window": given["win_length"],
            "hop": given["hop_length"],
            "attends": given["apply_attention"],
        },
    }


def transform(found: Published) -> str:
    """The chain of transforms from an image to the model's input."""
    side = published.settings(found.config, SETTINGS, found.folder)["image_resolution"]
    return f"decode | resize_short({side}, 'bicubic') | center_crop(({side}, {side}), 'even')"


def audio_transform(found: Published) -> str:
    """The chain of transforms from an audio file to the model's input."""
    del found
    return f"waveform({SECONDS}, {RATE})"


def rows(model: AudioCLIP) -> list[Row]:
    """The rename table of a model."""
    return [
        *clip_resnet.rows(model.image_tower(parent=None)),
        *open_clip.text_rows(model.text_tower(parent=None)),
        *same("text_proj/kernel", "text_projection"),
        *audio_rows(model.audio_tower(parent=None)),
        *same("logit_scale", "logit_scale"),
        *same("logit_scale_audio_image", "logit_scale_ai"),
        *same("logit_scale_audio_text", "logit_scale_at"),
    ]


def audio_rows(audio: ESResNeXt) -> list[Row]:
    """The audio tower."""
    table = [
        *same("audio/filters/order", "audio.fbsp.m"),
        *same("audio/filters/bandwidth", "audio.fbsp.fb"),
        *same("audio/filters/center", "audio.fbsp.fc"),
        *convolution("audio/stem_conv", "audio.conv1"),
        *batch_norm("audio/stem_norm", "audio.bn1"),
        *linear("audio/head", "audio.fc"),
    ]
    for stage, depth in enumerate(audio.layers):
        for place in range(depth):
            block = f"audio/stage{stage}_block{place}"
            theirs = f"audio.layer{stage + 1}.{place}"
            table += clip_resnet.bottleneck(block, theirs, place == 0)
    for place in range(len(audio.layers) + 1 if audio.attends else 0):
        ours, theirs = f"audio/attend{place}", f"audio.att{place + 1}"
        table += convolution(f"{ours}/depth", f"{theirs}.conv_depth", bias=True)
        table += pointwise(f"{ours}/point", f"{theirs}.conv_point", bias=True)
        table += batch_norm(f"{ours}/norm", f"{theirs}.bn")
    return table


def buffers(model: AudioCLIP) -> dict[str, np.ndarray]:
    """Tensors of the files that are not parameters."""
    window = blackman_harris(model.audio_tower(parent=None).window)
    return batch_counts(rows(model)) | {"audio.window": window}


def published_config(model: AudioCLIP) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that an AudioCLIP cannot have.
    """
    towers = (model.audio_tower, model.image_tower, model.text_tower)
    audio, image, text = (tower(parent=None) for tower in towers)
    kinds = {"audio": (audio, ESResNeXt), "image": (image, ModifiedResNet)}
    kinds["text"] = (text, TextTransformer)
    published.check_settings(
        "audioclip",
        {f"{k}.kind": (type(x).__name__, kind.__name__) for k, (x, kind) in kinds.items()},
    )
    sizes = text.sizes
    published.check_settings(
        "audioclip",
        {
            "audio.layers": (tuple(audio.layers), (3, 4, 6, 3)),
            "audio.groups": ((audio.groups, audio.group_width), (32, 4)),
            "audio.width": (audio.width, 64),
            "audio.features": (audio.features, model.embed_dim),
            "image.features": (image.features, model.embed_dim),
            "image.heads": (image.heads, image.width // 2),
            "image.image_size": (image.train_size, (image.train_size[0],) * 2),
            "text.pool": ((text.pool, text.causal), ("end", True)),
            "text.mlp_dim": (sizes["mlp_dim"], 4 * sizes["width"]),
            "text.activation": (text.activation, "quick_gelu"),
            "text.norm_epsilon": (text.norm_epsilon, 1e-5),
        },
    )
    return {
        "model_type": "audioclip",
        "embed_dim": model.embed_dim,
        "image_resolution": image.train_size[0],
        "vision_layers": list(image.layers),
        "vision_width": image.width,
        "context_length": text.length,
        "vocab_size": text.vocab_size,
        "transformer_width": sizes["width"],
        "transformer_heads": sizes["heads"],
        "transformer_layers": sizes["depth"],
        "n_fft": audio.fft,
        "hop_length": audio.hop,
        "win_length": audio.window,
        "apply_attention": audio.attends,
    }
