"""SAM in the layout of `transformers`.

Its mask decoder differs in one detail from facebookresearch/segment-anything: the norms of the
two-way blocks have an epsilon of 1e-6, not 1e-5. Here they have that of config.json, as there.
"""

from typing import Any

from mmjax.data.transforms import chain
from mmjax.layers.sizes import height_width
from mmjax.models.sam import SAM
from mmjax.models.sam_masks import MaskHead
from mmjax.system import BUFFERS
from mmjax.weights import activations, image_defaults, image_processor, published, schema
from mmjax.weights.layouts import (
    Row,
    convolution,
    fused_qkv,
    linear,
    merge_heads,
    norm,
    patches,
    pointwise,
    reshaped,
    same,
    split_heads,
)
from mmjax.weights.published import Published

# Settings that config.json may omit: defaults of SamVisionConfig, SamPromptEncoderConfig and
# SamMaskDecoderConfig in transformers 5.23.
VISION = {
    "hidden_size": 768,
    "output_channels": 256,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 1024,
    "patch_size": 16,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "mlp_ratio": 4.0,
    "use_abs_pos": True,
    "use_rel_pos": True,
    "window_size": 14,
    "global_attn_indexes": (2, 5, 8, 11),
    "num_pos_feats": 128,
    "mlp_dim": schema.Maybe(1),
}
PROMPTS = {
    "hidden_size": 256,
    "image_size": 1024,
    "patch_size": 16,
    "mask_input_channels": 16,
    "num_point_embeddings": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
}
DECODER = {
    "hidden_size": 256,
    "hidden_act": "relu",
    "mlp_dim": 2048,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "attention_downsample_rate": 2,
    "num_multimask_outputs": 3,
    "iou_head_depth": 3,
    "iou_head_hidden_dim": 256,
    "layer_norm_eps": 1e-6,
}
SYSTEM = "sam"
PROCESSOR = "SamImageProcessor"
SOURCE = image_processor.Source(PROCESSOR, "vision_config")
# The same array a second time.
IGNORED = (r"prompt_encoder\.shared_embedding\.positional_embedding",)


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The folder with all settings of its image processor; notes if it has no file of them.

    Raises:
      ValueError: an image processor of another kind.
    """
    if found.preprocessor is not None:
        return image_processor.complete(found, SOURCE)
    side = published.tower(found, VISION, "vision_config")["image_size"]
    sizes = {"size": {"longest_edge": side}, "pad_size": {"height": side, "width": side}}
    note = f"no settings of an image processor: those of the published models, at {side} pixels"
    return found._replace(preprocessor={**image_defaults.CLASSES[PROCESSOR], **sizes}), [note]


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    vision = published.tower(found, VISION, "vision_config")
    prompts = published.tower(found, PROMPTS, "prompt_encoder_config")
    decoder = published.tower(found, DECODER, "mask_decoder_config")
    width, side = vision["output_channels"], vision["image_size"]
    same_grid = ("image_size", "patch_size")
    needed = {
        "vision_config.use_abs_pos": (vision["use_abs_pos"], True),
        "vision_config.use_rel_pos": (vision["use_rel_pos"], True),
        "vision_config.num_channels": (vision["num_channels"], 3),
        "vision_config.num_pos_feats": (vision["num_pos_feats"], width // 2),
        "prompt_encoder_config.hidden_size": (prompts["hidden_size"], width),
        "prompt_encoder_config.num_point_embeddings": (prompts["num_point_embeddings"], 4),
        "mask_decoder_config.hidden_size": (decoder["hidden_size"], width),
        "mask_decoder_config.attention_downsample_rate": (decoder["attention_downsample_rate"], 2),
        "prompt_encoder_config.layer_norm_eps": (
            prompts["layer_norm_eps"],
            decoder["layer_norm_eps"],
        ),
        **{f"prompt_encoder_config.{k}": (prompts[k], vision[k]) for k in same_grid},
    }
    for name, (has, can) in needed.items():
        if has != can:
            raise ValueError(
                f"'{found.folder / published.CONFIG}' has {name} {has!r}; with the rest of its "
                f"settings only {can!r} can be loaded."
            )
    if len(set(height_width(side))) > 1:
        raise ValueError(f"'{found.folder}' has images of {side}; only square ones can be loaded.")
    _, mean, std = image_processor.read(_pixels(found))
    given = vision["mlp_dim"]
    act = activations.read
    return {
        "name": SYSTEM,
        "image": {
            "width": vision["hidden_size"],
            "depth": vision["num_hidden_layers"],
            "heads": vision["num_attention_heads"],
            "mlp_dim": given or int(vision["hidden_size"] * vision["mlp_ratio"]),
            "patch_size": vision["patch_size"],
            "image_size": height_width(side)[0],
            "image_mean": mean,
            "image_std": std,
            "window": vision["window_size"],
            "global_blocks": tuple(vision["global_attn_indexes"]),
            "out_width": width,
            "qkv_bias": vision["qkv_bias"],
            "norm_epsilon": vision["layer_norm_eps"],
            "activation": act(vision["hidden_act"], "vision_config.hidden_act"),
        },
        "decoder": {
            "mask_channels": prompts["mask_input_channels"],
            "masks": decoder["num_multimask_outputs"],
            "depth": decoder["num_hidden_layers"],
            "heads": decoder["num_attention_heads"],
            "mlp_dim": decoder["mlp_dim"],
            "iou_depth": decoder["iou_head_depth"],
            "iou_width": decoder["iou_head_hidden_dim"],
            "activation": act(prompts["hidden_act"], "prompt_encoder_config.hidden_act"),
            "decoder_activation": act(decoder["hidden_act"], "mask_decoder_config.hidden_act"),
            "epsilon": decoder["layer_norm_eps"],
        },
    }


def _pixels(found: Published) -> dict[str, Any]:
    """The settings of the image processor but those of sizes."""
    return {**found.preprocessor, "do_resize": False, "do_pad": False}


def transform(found: Published) -> str:
    """The chain of transforms up to uint8 pixels: the longer side resized, padding at the bottom
    and the right.

    Raises:
      ValueError: other steps, or another size than the model's.
    """
    settings = found.preprocessor
    side = height_width(published.tower(found, VISION, "vision_config")["image_size"])[0]
    if not settings.get("do_resize", True) or settings["size"] != {"longest_edge": side}:
        raise ValueError(
            f"The image processor of '{found.folder}' resizes images to {settings['size']}; the "
            f"model needs {{'longest_edge': {side}}}."
        )
    if not settings["do_pad"] or image_processor.sides(settings["pad_size"], "pad_size") != (
        side,
        side,
    ):
        raise ValueError(
            f"The image processor of '{found.folder}' pads images to {settings['pad_size']}; the "
            f"model needs {side}x{side}."
        )
    method = image_processor.pillow_filter(settings["resample"])
    return f"decode | resize_long({side}, '{method}') | pad_corner({side})"


def rows(model: SAM) -> list[Row]:
    """The rename table of a model."""
    ours, theirs = "masks/position/gaussian", "shared_image_embedding.positional_embedding"
    return [
        *same(f"{BUFFERS}/{ours}", theirs),
        *_encoder(model),
        *_prompts(),
        *_decoder(model.head(parent=None)),
    ]


def _encoder(model: SAM) -> list[Row]:
    encoder, theirs = model.encoder(parent=None), "vision_encoder"
    sizes, side = encoder.sizes, encoder.side
    heads = sizes["heads"]
    table = [
        *patches("image/stem/projection", f"{theirs}.patch_embed.projection", sizes["patch_size"]),
        *reshaped(
            "image/position/table", f"{theirs}.pos_embed", (side, side, -1), (1, side, side, -1)
        ),
        *pointwise("image/neck_in", f"{theirs}.neck.conv1"),
        *norm("image/neck_norm", f"{theirs}.neck.layer_norm1"),
        *convolution("image/neck_conv", f"{theirs}.neck.conv2"),
        *norm("image/norm", f"{theirs}.neck.layer_norm2"),
    ]
    for i in range(sizes["depth"]):
        block, layer = f"image/block{i}", f"{theirs}.layers.{i}"
        bias = f"{layer}.attn.qkv.bias" if encoder.qkv_bias else None
        table += [
            *norm(f"{block}/norm_attention", f"{layer}.layer_norm1"),
            *fused_qkv(f"{block}/attention/qkv", f"{layer}.attn.qkv.weight", bias, heads),
            *merge_heads(f"{block}/attention/out", f"{layer}.attn.proj", heads),
            *same(f"{block}/attention/rows", f"{layer}.attn.rel_pos_h"),
            *same(f"{block}/attention/columns", f"{layer}.attn.rel_pos_w"),
            *norm(f"{block}/norm_mlp", f"{layer}.layer_norm2"),
            *linear(f"{block}/mlp/up", f"{layer}.mlp.lin1"),
            *linear(f"{block}/mlp/down", f"{layer}.mlp.lin2"),
        ]
    return table


def _prompts() -> list[Row]:
    ours, theirs = "masks/prompts", "prompt_encoder"
    embed = f"{theirs}.mask_embed"
    return [
        *reshaped(f"{ours}/kinds", f"{theirs}.point_embed.{{i}}.weight", (-1,), (1, -1)),
        *reshaped(f"{ours}/not_a_point", f"{theirs}.not_a_point_embed.weight", (-1,), (1, -1)),
        *reshaped(f"{ours}/no_mask", f"{theirs}.no_mask_embed.weight", (-1,), (1, -1)),
        *patches(f"{ours}/mask1", f"{embed}.conv1", 2),
        *norm(f"{ours}/mask_norm1", f"{embed}.layer_norm1"),
        *patches(f"{ours}/mask2", f"{embed}.conv2", 2),
        *norm(f"{ours}/mask_norm2", f"{embed}.layer_norm2"),
        *pointwise(f"{ours}/mask3", f"{embed}.conv3", bias=True),
    ]


def _decoder(head: MaskHead) -> list[Row]:
    ours, theirs = "masks/decoder", "mask_decoder"
    table = [
        *same(f"{ours}/iou_token", f"{theirs}.iou_token.weight"),
        *same(f"{ours}/mask_tokens", f"{theirs}.mask_tokens.weight"),
        *_attention(
            f"{ours}/to_image", f"{theirs}.transformer.final_attn_token_to_image", head.heads
        ),
        *norm(f"{ours}/norm", f"{theirs}.transformer.layer_norm_final_attn"),
        *_doubling(f"{ours}/double1", f"{theirs}.upscale_conv1"),
        *norm(f"{ours}/double_norm", f"{theirs}.upscale_layer_norm"),
        *_doubling(f"{ours}/double2", f"{theirs}.upscale_conv2"),
        *_mlp(f"{ours}/mixers", f"{theirs}.output_hypernetworks_mlps.{{i}}", 3),
        *_mlp(f"{ours}/iou", f"{theirs}.iou_prediction_head", head.iou_depth),
    ]
    for i in range(head.depth):
        block, layer = f"{ours}/block{i}", f"{theirs}.transformer.layers.{i}"
        table += [
            *_attention(f"{block}/own", f"{layer}.self_attn", head.heads),
            *norm(f"{block}/norm_own", f"{layer}.layer_norm1"),
            *_attention(f"{block}/to_image", f"{layer}.cross_attn_token_to_image", head.heads),
            *norm(f"{block}/norm_to_image", f"{layer}.layer_norm2"),
            *linear(f"{block}/mlp/up", f"{layer}.mlp.lin1"),
            *linear(f"{block}/mlp/down", f"{layer}.mlp.lin2"),
            *norm(f"{block}/norm_mlp", f"{layer}.layer_norm3"),
            *_attention(f"{block}/to_tokens", f"{layer}.cross_attn_image_to_token", head.heads),
            *norm(f"{block}/norm_to_tokens", f"{layer}.layer_norm4"),
        ]
    return table


def _attention(ours: str, theirs: str, heads: int) -> list[Row]:
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
    maps = [split_heads(f"{ours}/{k}", f"{theirs}.{name}", heads) for k, name in names.items()]
    return [*sum(maps, []), *merge_heads(f"{ours}/out", f"{theirs}.out_proj", heads)]


def _mlp(ours: str, theirs: str, depth: int) -> list[Row]:
    names = ["proj_in", *(f"layers.{i}" for i in range(depth - 2)), "proj_out"]
    return sum((linear(f"{ours}/map{i}", f"{theirs}.{n}") for i, n in enumerate(names)), [])


def _doubling(ours: str, theirs: str) -> list[Row]:
    """A transposed convolution's `weight` [in, out, 2, 2] -> `kernel` [in, 2, 2, out]."""

    def read(x):
        return (x.transpose(0, 2, 3, 1),)

    def write(x):
        return (x.transpose(0, 3, 1, 2),)

    kernel = Row((f"{ours}/map/kernel",), (f"{theirs}.weight",), read, write)
    return [kernel, *same(f"{ours}/bias", f"{theirs}.bias")]


def published_config(model: SAM) -> dict[str, Any]:
    """config.json for one of our models."""
    encoder, head = model.encoder(parent=None), model.head(parent=None)
    sizes, width, act = encoder.sizes, encoder.out_width, activations.write
    grid = {"image_size": encoder.image_size, "patch_size": sizes["patch_size"]}
    return {
        "model_type": "sam",
        "architectures": ["SamModel"],
        "vision_config": {
            "hidden_size": sizes["width"],
            "output_channels": width,
            "num_hidden_layers": sizes["depth"],
            "num_attention_heads": sizes["heads"],
            "mlp_dim": sizes["mlp_dim"],
            **grid,
            "hidden_act": act(encoder.activation),
            "layer_norm_eps": encoder.norm_epsilon,
            "qkv_bias": encoder.qkv_bias,
            "window_size": encoder.window,
            "global_attn_indexes": list(encoder.global_blocks),
            "num_pos_feats": width // 2,
        },
        "prompt_encoder_config": {
            "hidden_size": width,
            **grid,
            "image_embedding_size": encoder.side,
            "mask_input_channels": head.mask_channels,
            "hidden_act": act(head.activation),
            "layer_norm_eps": head.epsilon,
        },
        "mask_decoder_config": {
            "hidden_size": width,
            "hidden_act": act(head.decoder_activation),
            "mlp_dim": head.mlp_dim,
            "num_hidden_layers": head.depth,
            "num_attention_heads": head.heads,
            "num_multimask_outputs": head.masks,
            "iou_head_depth": head.iou_depth,
            "iou_head_hidden_dim": head.iou_width,
            "layer_norm_eps": head.epsilon,
        },
    }


def published_preprocessor(model: SAM, transform: str) -> dict[str, Any]:
    """preprocessor_config.json for one of our models with this image transform.

    Raises:
      ValueError: a transform that SAM's image processor cannot describe.
    """
    encoder = model.encoder(parent=None)
    side, steps = encoder.image_size, {k: tuple(args) for k, args, *_ in chain.read(transform)}
    if steps.get("pad_corner") != (side,) or steps.get("resize_long", ())[:1] != (side,):
        raise ValueError(
            f"The transform '{transform}' is not that of a SAM, 'decode | resize_long({side}, "
            f"'bilinear') | pad_corner({side})': save the model without it."
        )
    method = (*steps["resize_long"], "bicubic")[1]
    square, small = {"height": side, "width": side}, 4 * encoder.side
    return {
        "image_processor_type": PROCESSOR,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"longest_edge": side},
        "mask_size": {"longest_edge": small},
        "resample": image_defaults.FILTERS.index(method),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(encoder.image_mean),
        "image_std": list(encoder.image_std),
        "do_pad": True,
        "pad_size": square,
        "mask_pad_size": {"height": small, "width": small},
    }
