"""DiT in diffusers (`_class_name` "DiTTransformer2DModel").

Each of its blocks has the embeddings of times and classes, which ours has once: they are equal in
converted models, and other files are refused. Its sinusoids of times and an epsilon of its norms
are not those of facebookresearch/DiT, so models have them in their config.
"""

from typing import Any

import numpy as np

from mmjax.models.diffusion import Diffusion
from mmjax.weights import denoiser, published
from mmjax.weights.layouts import Row, linear, merge_heads, patches, qkv, split_heads
from mmjax.weights.published import Published

SYSTEM = "diffusion"
LAYOUT = published.DIFFUSERS
IGNORED = ()
# Settings that config.json may omit: defaults of DiTTransformer2DModel.
SETTINGS = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "num_layers": 28,
    "dropout": 0.0,
    "sample_size": 32,
    "patch_size": 2,
    "num_embeds_ada_norm": 1000,
    "norm_eps": 1e-5,
}
FIXED = {
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
    "attention_bias": True,
    "activation_fn": "gelu-approximate",
    "upcast_attention": False,
}
STYLE = "diffusers_dit"  # of the sinusoids of times
DROPOUT = 0.1  # that diffusers trains with
EMBEDDING = "transformer_blocks.{}.norm1.emb."


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The folder with its noise schedule, and notes.

    Raises:
      ValueError: blocks whose embeddings of times and classes differ.
    """
    first = EMBEDDING.format(0)
    for name in found.tensors.shapes:
        before, inside, part = name.partition(".norm1.emb.")
        if inside and not name.startswith(first):
            ours = found.tensors.read(first + part)
            if not np.array_equal(ours, found.tensors.read(name)):
                raise ValueError(
                    f"In '{found.folder}' {name} differs from {first + part}: only a DiT whose "
                    "blocks have the same embeddings of times and classes can be loaded."
                )
    return denoiser.prepare(found)


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    where = found.folder / published.CONFIG
    settings = published.settings(found.config, SETTINGS, where)
    published.check_fixed(found, FIXED)
    backbone = {
        "kind": "dit",
        "width": settings["num_attention_heads"] * settings["attention_head_dim"],
        "depth": settings["num_layers"],
        "heads": settings["num_attention_heads"],
        "patch_size": settings["patch_size"],
        "mlp_epsilon": settings["norm_eps"],
        "time_style": STYLE,
        "dropout": settings["dropout"],
    }
    found = found._replace(config={**found.config, **settings})
    return denoiser.fields(found, backbone, settings["num_embeds_ada_norm"], DROPOUT)


def rows(model: Diffusion) -> list[Row]:
    """The rename table of a model."""
    sizes = model.make_backbone(parent=None).sizes
    depth, heads = sizes["depth"], sizes["heads"]
    block, own = "transformer_blocks.{i}", "backbone/layers"
    attention = [f"{block}.attn1.to_{part}" for part in "qkv"]
    table = [
        *patches("backbone/stem", "pos_embed.proj", sizes["patch_size"]),
        *split_heads(f"{own}/modulate", f"{block}.norm1.linear", 6),
        *qkv(f"{own}/attention/qkv", attention, heads),
        *merge_heads(f"{own}/attention/out", f"{block}.attn1.to_out.0", heads),
        *linear(f"{own}/mlp/up", f"{block}.ff.net.0.proj"),
        *linear(f"{own}/mlp/down", f"{block}.ff.net.2"),
        *split_heads("backbone/modulate", "proj_out_1", 2),
        *linear("backbone/head", "proj_out_2"),
    ]
    for ours, part in (("up", "linear_1"), ("down", "linear_2")):
        name = f"timestep_embedder.{part}"
        table.append(_shared(f"backbone/time/{ours}/kernel", f"{name}.weight", depth, True))
        table.append(_shared(f"backbone/time/{ours}/bias", f"{name}.bias", depth))
    table.append(_shared("backbone/class_table", "class_embedder.embedding_table.weight", depth))
    return table


def _shared(ours: str, name: str, depth: int, transpose: bool = False) -> Row:
    """A tensor that each block of theirs has."""

    def turned(x):
        return x.T if transpose else x

    return Row(
        (ours,),
        tuple(EMBEDDING.format(i) + name for i in range(depth)),
        lambda *x: (turned(x[0]),),
        lambda x: (turned(x),) * depth,
    )


def published_config(model: Diffusion) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: a model that a DiT of diffusers cannot be.
    """
    if model.backbone["kind"] != "dit":
        raise ValueError(
            "A DiTTransformer2DModel of diffusers is a DiT, and this backbone is none."
        )
    backbone = model.make_backbone(parent=None)
    square = model.shape[0] == model.shape[1]
    checked = {
        "backbone.time_style": (backbone.time_style, STYLE),
        "backbone.epsilon": (backbone.epsilon, 1e-6),
        "backbone.mlp_ratio": (backbone.mlp_ratio, 4.0),
        "condition_dropout": (model.condition_dropout, DROPOUT),
        "square samples": (square, True),
    }
    published.check_settings("DiTTransformer2DModel", checked)
    denoiser.scheduler_of(model)
    sizes = backbone.sizes
    return {
        "_class_name": "DiTTransformer2DModel",
        **denoiser.config_of(model),
        **FIXED,
        "num_attention_heads": sizes["heads"],
        "attention_head_dim": sizes["width"] // sizes["heads"],
        "num_layers": sizes["depth"],
        "patch_size": sizes["patch_size"],
        "num_embeds_ada_norm": model.num_classes,
        "norm_eps": backbone.mlp_epsilon,
        "dropout": backbone.dropout,
    }


def published_files(pretrained: Any) -> dict[str, Any]:
    """The noise schedule, in a file of its own."""
    return {str(denoiser.SCHEDULER): denoiser.scheduler_of(pretrained.model)}
