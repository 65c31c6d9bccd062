"""Llama-style language models, such as SmolLM2, in the layout of `transformers`."""

from typing import Any

import numpy as np
from einops import rearrange

from mmjax.data.text.tokenizer import Tokenizer
from mmjax.models.language import LanguageModel
from mmjax.weights import activations, published, tokenizer
from mmjax.weights.layouts import Arrays, Row, linear, merge_heads, norm, same
from mmjax.weights.published import Published

SYSTEM = "language_model"
# Rotary frequencies in older files, and the head of a tied model.
IGNORED = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", r"lm_head\.weight")

# Settings that config.json may omit: defaults of LlamaConfig.
SETTINGS = {
    "hidden_act": "silu",
    "num_key_value_heads": None,
    "head_dim": None,
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
}


def canonical(name: str) -> str:
    """The name of a tensor in `rows`: files without a head omit "model."."""
    bare = name.startswith(("layers.", "embed_tokens.", "norm."))
    return f"model.{name}" if bare else name


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our decoder does not support.
    """
    published.check_fixed(found, {"attention_bias": False, "mlp_bias": False})
    s = SETTINGS | found.config
    rope = {**(s.get("rope_scaling") or {}), **(s.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ValueError(
            f"'{found.folder}' scales its rotary positions by '{kind}'; only models that do not "
            "scale them can be loaded."
        )
    return decoder_config(
        vocab_size=s["vocab_size"],
        width=s["hidden_size"],
        length=s["max_position_embeddings"],
        tied=s["tie_word_embeddings"],
        depth=s["num_hidden_layers"],
        heads=s["num_attention_heads"],
        kv_heads=s["num_key_value_heads"] or s["num_attention_heads"],
        head_dim=s["head_dim"] or s["hidden_size"] // s["num_attention_heads"],
        mlp_dim=s["intermediate_size"],
        epsilon=s["rms_norm_eps"],
        rope_base=float(rope.get("rope_theta", s["rope_theta"])),
        activation=activations.read(s["hidden_act"], "hidden_act"),
    )


def decoder_config(
    vocab_size: int, width: int, length: int, tied: bool, activation: str = "silu", **sizes: Any
) -> dict[str, Any]:
    """`config.model` of a Llama whose decoder has these sizes."""
    kind = {"norm": "rms", "gated_mlp": True, "use_bias": False, "positions": "rope"}
    return language_model(vocab_size, width, length, tied, **sizes, activation=activation, **kind)


def language_model(
    vocab_size: int, width: int, length: int, tied: bool, **decoder: Any
) -> dict[str, Any]:
    """`config.model` of a language model."""
    sizes = {"vocab_size": vocab_size, "width": width, "length": length}
    return {"name": "language_model", "text": {**sizes, "tied": tied, "decoder": decoder}}


def read_tokenizer(found: Published) -> Tokenizer | None:
    """The tokenizer of the folder."""
    return tokenizer.read_for_generation(found.folder)


def rows(model: LanguageModel) -> list[Row]:
    """The rename table of a model."""
    text = model.text_decoder(parent=None)
    stack = text.stack(parent=None)
    block, layer = "text/decoder/stack/layers", "model.layers.{i}"
    attention = [f"{layer}.self_attn.{x}_proj.weight" for x in "qkv"]
    table = [
        *same("text/embed/embedding", "model.embed_tokens.weight"),
        *norm(f"{block}/norm_attention", f"{layer}.input_layernorm", bias=False),
        grouped_qkv(
            f"{block}/attention/qkv", attention, stack.heads, stack.kv_heads or stack.heads
        ),
        *merge_heads(
            f"{block}/attention/out", f"{layer}.self_attn.o_proj", stack.heads, bias=False
        ),
        *norm(f"{block}/norm_mlp", f"{layer}.post_attention_layernorm", bias=False),
        *norm("text/decoder/norm", "model.norm", bias=False),
    ]
    for name in ("gate", "up", "down"):
        table += linear(f"{block}/mlp/{name}", f"{layer}.mlp.{name}_proj", bias=False)
    return table if text.tied else [*table, *same("text/embed/head", "lm_head.weight")]


def grouped_qkv(ours: str, theirs: list[str], heads: int, kv_heads: int) -> Row:
    """Queries [H · D, in], keys and values [K · D, in] -> `kernel` [in, H / K + 2, K, D]."""
    group = heads // kv_heads
    counts = (group, 1, 1)

    def read(*x) -> Arrays:
        parts = (rearrange(a, "(k g d) i -> i g k d", k=kv_heads, g=g) for a, g in zip(x, counts))
        return (np.concatenate(list(parts), axis=1),)

    def write(kernel) -> Arrays:
        parts = np.split(kernel, (group, group + 1), axis=1)
        return tuple(rearrange(a, "i g k d -> (k g d) i") for a in parts)

    return Row((f"{ours}/kernel",), tuple(theirs), read, write)


def check_decoder(family: str, stack: Any, **wanted: Any) -> None:
    """Raise ValueError where our decoder has other settings, or cross-attention."""
    wanted = {**wanted, "cross_every": 0}
    published.check_settings(
        family, {f"text.decoder.{k}": (getattr(stack, k), value) for k, value in wanted.items()}
    )


def published_config(model: LanguageModel) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a Llama cannot have.
    """
    text = model.text_decoder(parent=None)
    stack = text.stack(parent=None)
    check_decoder("llama", stack, norm="rms", gated_mlp=True, use_bias=False, positions="rope")
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": text.vocab_size,
        "hidden_size": text.width,
        "intermediate_size": stack.mlp_dim,
        "num_hidden_layers": stack.depth,
        "num_attention_heads": stack.heads,
        "num_key_value_heads": stack.kv_heads or stack.heads,
        "head_dim": stack.head_dim or text.width // stack.heads,
        "hidden_act": activations.write(stack.activation),
        "max_position_embeddings": text.length,
        "rms_norm_eps": stack.epsilon,
        # one is for older versions, the other for newer ones
        "rope_theta": stack.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": stack.rope_base},
        "tie_word_embeddings": text.tied,
    }
