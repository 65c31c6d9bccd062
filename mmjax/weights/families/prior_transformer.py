"""The diffusion prior of Karlo and Kandinsky: PriorTransformer, in the layout of `diffusers`."""

from typing import Any

from mmjax.models.prior_transformer import PriorTransformer
from mmjax.system import BUFFERS
from mmjax.weights import published
from mmjax.weights.layouts import Row, linear, merge_heads, norm, qkv, reshaped
from mmjax.weights.published import Published

SYSTEM = "prior_transformer"
LAYOUT = published.DIFFUSERS
IGNORED = ()

# Settings that config.json may omit: defaults of PriorTransformer.
SETTINGS = {
    "num_attention_heads": 32,
    "attention_head_dim": 64,
    "num_layers": 20,
    "embedding_dim": 768,
    "num_embeddings": 77,
    "dropout": 0.0,
}
# Those that change the computation, with the only value that our model supports; the others are of
# Shap-E, whose prior is another network.
FIXED = {
    "additional_embeddings": 4,
    "time_embed_act_fn": "silu",
    "norm_in_type": None,
    "embedding_proj_norm_type": None,
    "encoder_hid_proj_type": "linear",
    "added_emb_type": "prd",
}


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    published.check_fixed(found, FIXED)
    s = published.settings(found.config, SETTINGS, found.folder / published.CONFIG)
    width = s["num_attention_heads"] * s["attention_head_dim"]
    same = {"time_embed_dim": width}
    same |= dict.fromkeys(("embedding_proj_dim", "clip_embed_dim"), s["embedding_dim"])
    published.check_fixed(
        found._replace(config={k: x for k, x in found.config.items() if x is not None}), same
    )
    return {
        "name": SYSTEM,
        "embed_dim": s["embedding_dim"],
        "text_width": s["embedding_dim"],
        "length": s["num_embeddings"],
        "width": width,
        "depth": s["num_layers"],
        "heads": s["num_attention_heads"],
        "dropout": s["dropout"],
    }


def rows(model: PriorTransformer) -> list[Row]:
    """The rename table of a model."""
    ours, theirs, heads = "transformer/layers", "transformer_blocks.{i}", model.heads
    attention = f"{theirs}.attn1"
    return [
        *linear("time/up", "time_embedding.linear_1"),
        *linear("time/down", "time_embedding.linear_2"),
        *linear("image_proj", "proj_in"),
        *linear("text_proj", "embedding_proj"),
        *linear("token_proj", "encoder_hidden_states_proj"),
        *reshaped(
            "position", "positional_embedding", (model.sequence, -1), (1, model.sequence, -1)
        ),
        *reshaped("query", "prd_embedding", (-1,), (1, 1, -1)),
        *norm(f"{ours}/norm_attention", f"{theirs}.norm1"),
        *qkv(f"{ours}/attention/qkv", [f"{attention}.to_{x}" for x in "qkv"], heads),
        *merge_heads(f"{ours}/attention/out", f"{attention}.to_out.0", heads),
        *norm(f"{ours}/norm_mlp", f"{theirs}.norm3"),
        *linear(f"{ours}/mlp/up", f"{theirs}.ff.net.0.proj"),
        *linear(f"{ours}/mlp/down", f"{theirs}.ff.net.2"),
        *norm("norm", "norm_out"),
        *linear("head", "proj_to_clip_embeddings"),
        *reshaped(f"{BUFFERS}/mean", "clip_mean", (-1,), (1, -1)),
        *reshaped(f"{BUFFERS}/deviation", "clip_std", (-1,), (1, -1)),
    ]


def published_config(model: PriorTransformer) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published prior cannot have.
    """
    published.check_settings(
        "PriorTransformer",
        {
            "text_width": (model.text_width, model.embed_dim),
            "mlp_dim": (model.mlp_dim or 4 * model.width, 4 * model.width),
        },
    )
    return {
        "_class_name": "PriorTransformer",
        "num_attention_heads": model.heads,
        "attention_head_dim": model.width // model.heads,
        "num_layers": model.depth,
        "embedding_dim": model.embed_dim,
        "num_embeddings": model.length,
        "dropout": model.dropout,
        **FIXED,
    }
