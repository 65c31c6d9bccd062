"""Llama-style language models in the layout of `transformers`: Llama, Mistral, Qwen2, and others
that use their names, such as SmolLM2."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from einops import rearrange

from mmjax.data.text.tokenizer import Tokenizer
from mmjax.layers.decoder import Decoder
from mmjax.models.language import LanguageModel
from mmjax.models.text_decoder import TextDecoder
from mmjax.weights import activations, head, published, rope, schema, tokenizer
from mmjax.weights.layouts import Arrays, Joined, Row, linear, merge_heads, norm, same
from mmjax.weights.published import Published

SYSTEM = "language_model"
# Rotary frequencies in older files.
IGNORED = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)
BARE = {"llama": "LlamaModel", "mistral": "MistralModel", "qwen2": "Qwen2Model"}
HEAD = head.Head("lm_head.weight", "model.embed_tokens.weight", False, tuple(BARE.values()))

# Settings that config.json may omit: defaults of LlamaConfig, and where the others differ.
SETTINGS = {
    "hidden_act": "silu",
    "num_key_value_heads": schema.Maybe(1),
    "head_dim": schema.Maybe(1),
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "attention_bias": False,
    "mlp_bias": False,
}
OTHERS = {
    "mistral": {
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
    },
    "qwen2": {
        "vocab_size": 151_936,
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
        "layer_types": schema.Maybe(("full_attention",)),
    },
}
NORMS = {"norm_attention": "input_layernorm", "norm_mlp": "post_attention_layernorm"}
GEMMA2_NORMS = {
    "norm_attention": "input_layernorm",
    "norm_attention_out": "post_attention_layernorm",
    "norm_mlp": "pre_feedforward_layernorm",
    "norm_mlp_out": "post_feedforward_layernorm",
}
# Settings of our decoder that only a Gemma 2 changes.
GEMMA2 = {"branch_norm": False, "query_dim": None, "attention_cap": None, "windowed": ()}


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The folder with the head that its files have, and notes for the report."""
    return head.resolve(found, HEAD)


def canonical(name: str) -> str:
    """The name of a tensor in `rows`: files without a head omit "model."."""
    bare = name.startswith(("layers.", "embed_tokens.", "norm."))
    return f"model.{name}" if bare else name


def published_name(name: str, model: LanguageModel) -> str:
    """The inverse of `canonical`."""
    return name if model.head else name.removeprefix("model.")


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our decoder does not support.
    """
    kind, given = found.config["model_type"], found.config
    defaults = {**SETTINGS, **OTHERS.get(kind, {})}
    s = published.settings(given, defaults, found.folder / published.CONFIG)
    if given.get("sliding_window", 0) is None:  # there is none, and not the default
        s["sliding_window"] = None
    base, scaling = rope.read(s, str(found.folder))
    biases = {
        "qkv_bias": kind == "qwen2" or (kind == "llama" and s["attention_bias"]),
        "out_bias": kind == "llama" and s["attention_bias"],
        "mlp_bias": kind == "llama" and s["mlp_bias"],
    }
    return decoder_config(
        vocab_size=s["vocab_size"],
        width=s["hidden_size"],
        length=s["max_position_embeddings"],
        tied=s[head.TIED],
        bare=head.is_bare(found, HEAD),
        depth=s["num_hidden_layers"],
        heads=s["num_attention_heads"],
        kv_heads=s["num_key_value_heads"] or s["num_attention_heads"],
        head_dim=s["head_dim"] or s["hidden_size"] // s["num_attention_heads"],
        mlp_dim=s["intermediate_size"],
        epsilon=s["rms_norm_eps"],
        rope_base=base,
        activation=activations.read(s["hidden_act"], "hidden_act"),
        **{name: True for name, has in biases.items() if has},
        **({} if scaling is None else {"rope_scaling": scaling}),
        **_window(kind, s, found),
    )


def _window(kind: str, settings: Mapping[str, Any], found: Published) -> dict[str, Any]:
    """The sliding window and its layers; {} without one.

    Raises:
      ValueError: kinds of another number of layers.
    """
    if kind == "llama":
        return {}
    depth, window = settings["num_hidden_layers"], settings["sliding_window"]
    slides = [True] * depth
    if kind == "qwen2":
        window = window if settings["use_sliding_window"] else None
        slides = [i >= settings["max_window_layers"] for i in range(depth)]
        if settings["layer_types"] is not None:
            slides = [name == "sliding_attention" for name in settings["layer_types"]]
    if len(slides) != depth:
        raise ValueError(
            f"'{found.folder}' has {len(slides)} layer_types for {depth} layers: get it again."
        )
    long = window is not None and window >= settings["max_position_embeddings"]
    return windows(None if long else window, slides)


def windows(window: int | None, slides: Sequence[bool]) -> dict[str, Any]:
    """Fields of `Decoder` for a sliding window in the layers where `slides` is true."""
    if window is None or not any(slides):
        return {}
    return {"sliding_window": window, **({} if all(slides) else {"windowed": tuple(slides)})}


def slides(stack: Decoder) -> tuple[bool, ...]:
    """Of each layer, whether it has a sliding window."""
    return tuple(stack.windowed) or (stack.sliding_window is not None,) * stack.depth


def decoder_config(
    vocab_size: int,
    width: int,
    length: int,
    tied: bool,
    activation: str = "silu",
    bare: bool = False,
    **sizes: Any,
) -> dict[str, Any]:
    """`config.model` of a Llama whose decoder has these sizes."""
    kind = {"norm": "rms", "gated_mlp": True, "use_bias": False, "positions": "rope"}
    sizes |= {"activation": activation, **kind}
    return language_model(vocab_size, width, length, tied, bare, **sizes)


def language_model(
    vocab_size: int, width: int, length: int, tied: bool, bare: bool, **decoder: Any
) -> dict[str, Any]:
    """`config.model` of a language model; `bare`: without a head."""
    sizes = {"vocab_size": vocab_size, "width": width, "length": length}
    text = {**sizes, "tied": tied or bare, "decoder": decoder}
    return {"name": "language_model", "text": text, **({"head": False} if bare else {})}


def read_tokenizer(found: Published) -> Tokenizer | None:
    """The tokenizer of the folder."""
    return tokenizer.read_for_generation(found.folder)


def read_generation(found: Published) -> dict[str, Any]:
    """The content of generation_config.json."""
    return tokenizer.read_generation(found.folder)


def rows(model: LanguageModel) -> list[Row]:
    """The rename table of a model."""
    text = model.text_decoder(parent=None)
    stack = text.stack(parent=None)
    has, groups = stack.biases, (stack.heads, stack.kv_heads or stack.heads)
    block, layer = "text/decoder/stack/layers", "model.layers.{i}"
    attention, out = f"{block}/attention", f"{layer}.self_attn.o_proj"
    table = [
        *same("text/embed/embedding", HEAD.embedding),
        *grouped_qkv(f"{attention}/qkv", f"{layer}.self_attn", *groups, has["qkv_bias"]),
        *merge_heads(f"{attention}/out", out, stack.heads, has["out_bias"]),
        *norm("text/decoder/norm", "model.norm", bias=False),
    ]
    for ours, theirs in (GEMMA2_NORMS if stack.branch_norm else NORMS).items():
        table += norm(f"{block}/{ours}", f"{layer}.{theirs}", bias=False)
    for name in ("gate", "up", "down"):
        table += linear(f"{block}/mlp/{name}", f"{layer}.mlp.{name}_proj", has["mlp_bias"])
    return table if text.tied else [*table, *same("text/embed/head", HEAD.name)]


def grouped_qkv(ours: str, theirs: str, heads: int, kv_heads: int, bias: bool) -> list[Row]:
    """Queries [H · D, in], keys and values [K · D, in] -> `kernel` [in, H / K + 2, K, D], and
    their biases -> `bias` [H / K + 2, K, D]."""
    group = heads // kv_heads
    counts = (group, 1, 1)

    def read(*x) -> Arrays:
        parts = [
            rearrange(a, "(k g d) ... -> ... g k d", k=kv_heads, g=g) for a, g in zip(x, counts)
        ]
        return (Joined(parts, axis=-3),)

    def write(x) -> Arrays:
        parts = np.split(x, (group, group + 1), axis=-3)
        return tuple(rearrange(a, "... g k d -> (k g d) ...") for a in parts)

    def row(part: str, name: str) -> Row:
        names = tuple(f"{theirs}.{x}_proj.{name}" for x in "qkv")
        return Row((f"{ours}/{part}",), names, read, write)

    return [row("kernel", "weight"), *([row("bias", "bias")] if bias else [])]


def check_decoder(
    family: str,
    text: TextDecoder,
    embed_scale: float | None = None,
    logit_cap: float | None = None,
    **wanted: Any,
) -> None:
    """Raise ValueError where our decoder has other settings, cross-attention, or, unless they are
    given, settings of a Gemma 2."""
    stack = text.stack(parent=None)
    wanted = {**GEMMA2, **wanted, "cross_every": 0, "final_norm": True}
    has = {k: stack.biases[k] if k in stack.biases else getattr(stack, k) for k in wanted}
    pairs = {f"text.decoder.{k}": (has[k], value) for k, value in wanted.items()}
    pairs["text.embed_scale"] = (text.embed_scale, embed_scale)
    pairs["text.logit_cap"] = (text.logit_cap, logit_cap)
    published.check_settings(family, pairs)


def published_config(model: LanguageModel) -> dict[str, Any]:
    """config.json for one of our models: of a Qwen2 or a Mistral where only they fit.

    Raises:
      ValueError: settings that neither they nor a Llama can have.
    """
    text = model.text_decoder(parent=None)
    stack = text.stack(parent=None)
    has, window = stack.biases, stack.sliding_window
    kind = "llama" if window is None else "mistral"
    if has["qkv_bias"] and not has["out_bias"]:
        kind = "qwen2"
    biases = {
        "llama": has | {"out_bias": has["qkv_bias"]},
        "mistral": dict.fromkeys(has, False),
        "qwen2": {"qkv_bias": True, "out_bias": False, "mlp_bias": False},
    }[kind]
    windowed = {"windowed": stack.windowed} if kind == "qwen2" else {}
    check = {"norm": "rms", "gated_mlp": True, "positions": "rope", **biases, **windowed}
    check_decoder(kind, text, **check)
    others = {"sliding_window": window}
    if kind == "qwen2":
        others |= {"use_sliding_window": window is not None, "max_window_layers": 0}
        if stack.windowed:
            names = {True: "sliding_attention", False: "full_attention"}
            others["layer_types"] = [names[slides] for slides in stack.windowed]
    if kind == "llama":
        others = {"attention_bias": has["qkv_bias"], "mlp_bias": has["mlp_bias"]}
    bare = BARE[kind]
    return {
        "model_type": kind,
        "architectures": [bare.replace("Model", "ForCausalLM") if model.head else bare],
        **published_sizes(text),
        **others,
        head.TIED: text.tied and model.head,
    }


def published_sizes(text: TextDecoder) -> dict[str, Any]:
    """The settings of config.json that every decoder of this form has."""
    stack = text.stack(parent=None)
    return {
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
        **rope.write(stack.rope_base, stack.rope_scaling, text.length),
    }
