"""Gemma and Gemma 2 in the layout of `transformers`, and the decoders of PaliGemma."""

import math
from collections.abc import Mapping
from typing import Any

from mmjax.models.language import LanguageModel
from mmjax.models.text_decoder import TextDecoder
from mmjax.weights import activations, head, published, rope, schema
from mmjax.weights.families import llama
from mmjax.weights.layouts import Row
from mmjax.weights.published import Published

SYSTEM, IGNORED = llama.SYSTEM, llama.IGNORED
canonical, published_name = llama.canonical, llama.published_name
read_tokenizer, read_generation = llama.read_tokenizer, llama.read_generation
BARE = {"gemma": "GemmaModel", "gemma2": "Gemma2Model"}
HEAD = llama.HEAD._replace(tied=True, bare=tuple(BARE.values()))
LOCAL, WHOLE = "sliding_attention", "full_attention"

# Settings that config.json may omit: defaults of GemmaConfig and of Gemma2Config.
SETTINGS = {
    "gemma": {
        "vocab_size": 256_000,
        "hidden_size": 3072,
        "intermediate_size": 24_576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "attention_bias": False,
        "attention_dropout": 0.0,
    }
}
SETTINGS["gemma2"] = {
    **SETTINGS["gemma"],
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256.0,
    "sliding_window": 4096,
    "layer_types": schema.Maybe((WHOLE,)),
    "final_logit_softcapping": 30.0,
    "attn_logit_softcapping": 50.0,
}
OPTIONAL = ("sliding_window", "final_logit_softcapping", "attn_logit_softcapping")  # null: none


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The folder with the head that its files have, and notes for the report."""
    return head.resolve(found, HEAD)


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: as `text_fields`, or attention in both directions.
    """
    if found.config.get("use_bidirectional_attention") is not False:  # as null
        published.check_fixed(found, {"use_bidirectional_attention": None})
    bare = head.is_bare(found, HEAD)
    text = text_fields(found.config, str(found.folder / published.CONFIG))
    text["tied"] = text["tied"] or bare
    return {"name": SYSTEM, "text": text, **({"head": False} if bare else {})}


def text_fields(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of `TextDecoder` for the settings of a Gemma.

    Args:
      given: with `model_type` and `tie_word_embeddings`; where: the file or section, for messages.

    Raises:
      ValueError: another decoder, or settings that ours does not support.
    """
    kind = given["model_type"]
    if not isinstance(kind, str) or kind not in BARE or given.get("attention_bias"):
        raise ValueError(
            f"'{where}' has a decoder of type '{kind}' and attention_bias "
            f"{given.get('attention_bias', False)}; {' and '.join(BARE)} without biases can be "
            "loaded."
        )
    s = published.settings(given, SETTINGS[kind], where)
    s |= {name: None for name in OPTIONAL if name in given and given[name] is None}
    base, scaling = rope.read(s, where)
    text = llama.decoder_config(
        vocab_size=s["vocab_size"],
        width=s["hidden_size"],
        length=s["max_position_embeddings"],
        tied=s[head.TIED],
        activation=_activation(kind, given, s),
        depth=s["num_hidden_layers"],
        heads=s["num_attention_heads"],
        kv_heads=s["num_key_value_heads"],
        head_dim=s["head_dim"],
        mlp_dim=s["intermediate_size"],
        epsilon=s["rms_norm_eps"],
        rope_base=base,
        **({} if scaling is None else {"rope_scaling": scaling}),
        **(_second(s, where) if kind == "gemma2" else {}),
    )["text"]
    text["embed_scale"] = math.sqrt(text["width"])
    cap = s.get("final_logit_softcapping")
    return text if cap is None else text | {"logit_cap": cap}


def _activation(kind: str, given: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Our name of the published activation."""
    default = SETTINGS["gemma"]["hidden_act"]
    if kind == "gemma2":
        return activations.read(given.get("hidden_activation") or default, "hidden_activation")
    # Gemma's first files say "gelu" and mean its approximation (transformers 5.23, GemmaConfig).
    act = default if settings["hidden_act"] == "gelu" else settings["hidden_act"]
    return activations.read(act, "hidden_act")


def _second(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a Gemma 2 has besides: fields of `Decoder`."""
    depth, kinds = settings["num_hidden_layers"], settings["layer_types"]
    kinds = [WHOLE if i % 2 else LOCAL for i in range(depth)] if kinds is None else kinds
    if len(kinds) != depth or not {*kinds} <= {LOCAL, WHOLE}:
        raise ValueError(
            f"'{where}' has layer_types {list(kinds)}; for {depth} layers as many of '{LOCAL}' and "
            f"'{WHOLE}' are needed: get it again."
        )
    fields: dict[str, Any] = {"branch_norm": True}
    if settings["query_pre_attn_scalar"] != settings["head_dim"]:
        fields["query_dim"] = settings["query_pre_attn_scalar"]
    if settings["attn_logit_softcapping"] is not None:
        fields["attention_cap"] = settings["attn_logit_softcapping"]
    window = settings["sliding_window"]
    return fields | llama.windows(window, [kind == LOCAL for kind in kinds])


def rows(model: LanguageModel) -> list[Row]:
    """The rename table of a model."""
    return [_about_one(row) for row in llama.rows(model)]


def _about_one(row: Row) -> Row:
    """Gemma's norms store the difference of a scale from 1 (modeling_gemma.py, GemmaRMSNorm)."""
    if not row.ours[0].endswith("/scale"):
        return row
    return row._replace(read=lambda x: (x + 1,), write=lambda x: (x - 1,))


def published_config(model: LanguageModel) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that neither a Gemma nor a Gemma 2 can have.
    """
    text = model.text_decoder(parent=None)
    config = published_text("gemma", text)
    bare = BARE[config["model_type"]]
    architecture = bare.replace("Model", "ForCausalLM") if model.head else bare
    tied = text.tied and model.head
    return {**config, "architectures": [architecture], head.TIED: tied}


def published_text(family: str, text: TextDecoder) -> dict[str, Any]:
    """The settings of a Gemma for one of our decoders.

    Args:
      family: for messages.

    Raises:
      ValueError: as `published_config`.
    """
    stack = text.stack(parent=None)
    has = ("branch_norm", "query_dim", "attention_cap", "sliding_window", "windowed")
    second = {name: getattr(stack, name) for name in has} if stack.branch_norm else {}
    # "gelu" of a Gemma means its approximation: see `_activation`.
    exact = stack.activation == "gelu" and not stack.branch_norm
    llama.check_decoder(
        family,
        text,
        embed_scale=math.sqrt(text.width),
        logit_cap=text.logit_cap if stack.branch_norm else None,
        activation="gelu_tanh" if exact else stack.activation,
        norm="rms",
        gated_mlp=True,
        positions="rope",
        **{"sliding_window": None, **second},
        **dict.fromkeys(stack.biases, False),
    )
    return {
        "model_type": "gemma2" if stack.branch_norm else "gemma",
        **llama.published_sizes(text),
        "hidden_activation": activations.write(stack.activation),
        head.TIED: text.tied,
        **(_published_second(text) if stack.branch_norm else {}),
    }


def _published_second(text: TextDecoder) -> dict[str, Any]:
    """What the settings of a Gemma 2 have besides."""
    stack = text.stack(parent=None)
    query = stack.query_dim or stack.head_dim or text.width // stack.heads
    window = stack.sliding_window
    return {
        "query_pre_attn_scalar": int(query) if query == int(query) else query,
        "attn_logit_softcapping": stack.attention_cap,
        "final_logit_softcapping": text.logit_cap,
        # transformers 5.23 makes the mask of a window whether a layer has one or not
        "sliding_window": text.length if window is None else window,
        "layer_types": [LOCAL if slides else WHOLE for slides in llama.slides(stack)],
    }
