"""Llama-style language models from GGUF files: the config, the parameters, and a report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from mmjax.checkpoint import compare
from mmjax.weights.gguf import GGUF

# Per layer: our parameter, and the tensors that it is made of.
_LAYER = {
    "norm_attention/scale": ("attn_norm.weight",),
    "attention/qkv/kernel": ("attn_q.weight", "attn_k.weight", "attn_v.weight"),
    "attention/out/kernel": ("attn_output.weight",),
    "norm_mlp/scale": ("ffn_norm.weight",),
    "mlp/gate/kernel": ("ffn_gate.weight",),
    "mlp/up/kernel": ("ffn_up.weight",),
    "mlp/down/kernel": ("ffn_down.weight",),
}
_WHOLE = {
    "text/embed/embedding": "token_embd.weight",
    "text/embed/head": "output.weight",
    "text/decoder/norm/scale": "output_norm.weight",
}


def model_config(file: GGUF) -> dict[str, Any]:
    """`config.model` of the language model in a GGUF file.

    Raises:
      ValueError: another architecture, settings that are missing, or that our decoder lacks.
    """
    kind = file.metadata.get("general.architecture")
    if kind != "llama":
        raise ValueError(f"'{file.path}' holds a model of kind '{kind}'; 'llama' can be read.")
    scaling = [k for k in file.metadata if k.startswith("llama.rope.scal")]
    if scaling:
        raise ValueError(f"'{file.path}' scales its rotary positions ({', '.join(scaling)}).")

    def get(name, default=None):
        value = file.metadata.get(f"llama.{name}", default)
        if value is None:
            raise ValueError(f"'{file.path}' lacks 'llama.{name}' in its metadata.")
        return value

    heads, width = get("attention.head_count"), get("embedding_length")
    head_dim = get("attention.key_length", width // heads)
    if get("rope.dimension_count", head_dim) != head_dim:
        raise ValueError(
            f"'{file.path}' turns {get('rope.dimension_count')} of {head_dim} dimensions of a "
            "head; only rotary positions of whole heads can be read."
        )
    return {
        "name": "language_model",
        "text": {
            "vocab_size": file.tensors["token_embd.weight"].shape[0],
            "width": width,
            "length": get("context_length"),
            "tied": "output.weight" not in file.tensors,
            "decoder": {
                "depth": get("block_count"),
                "heads": heads,
                "kv_heads": get("attention.head_count_kv", heads),
                "head_dim": head_dim,
                "mlp_dim": get("feed_forward_length"),
                "norm": "rms",
                "epsilon": get("attention.layer_norm_rms_epsilon"),
                "activation": "silu",
                "gated_mlp": True,
                "use_bias": False,
                "positions": "rope",
                "rope_base": get("rope.freq_base", 10_000.0),
            },
        },
    }


def _turned_halves(x: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key kernel [heads · D, in] -> [heads, D, in] in our order.

    llama.cpp rotates neighbouring rows; our pairs, as those of the original weights, are the two
    halves of a head.
    """
    x = x.reshape(heads, -1, 2, x.shape[-1])
    return x.swapaxes(1, 2).reshape(heads, -1, x.shape[-1])


def _assemble(name: str, parts: list[np.ndarray], decoder: Mapping[str, Any]) -> np.ndarray:
    """One of our parameters of a layer; the file's matrices are [out, in]."""
    heads, kv_heads = decoder["heads"], decoder["kv_heads"]
    if name == "attention/qkv/kernel":
        query, key, value = parts
        query, key = _turned_halves(query, heads), _turned_halves(key, kv_heads)
        width = query.shape[-1]
        query = query.reshape(kv_heads, heads // kv_heads, -1, width)
        key, value = key[:, None], value.reshape(kv_heads, 1, -1, width)
        return np.concatenate([query, key, value], axis=1).transpose(3, 0, 1, 2)
    if name == "attention/out/kernel":
        return parts[0].T.reshape(heads, -1, parts[0].shape[0])
    return parts[0].T  # a vector stays as it is


def read(file: GGUF) -> tuple[dict[str, Any], dict[str, np.ndarray], str]:
    """`config.model`, the parameters (path -> float32 array) and a report of every tensor.

    Raises:
      ValueError: a file of another model, or one with tensors missing or left over; lists them.
    """
    config = model_config(file)
    decoder = config["text"]["decoder"]
    depth = decoder["depth"]
    wanted = {v: k for k, v in _WHOLE.items()}
    if config["text"]["tied"]:
        del wanted["output.weight"]
    for i in range(depth):
        for ours, theirs in _LAYER.items():
            wanted |= {f"blk.{i}.{t}": f"text/decoder/stack/layers/{ours}[{i}]" for t in theirs}
    missing = sorted(wanted.keys() - file.tensors.keys())
    unused = sorted(file.tensors.keys() - wanted.keys())
    if missing or unused:
        raise ValueError(
            f"'{file.path}' is not the model that its metadata describe. "
            f"Missing tensors: {_some(missing)}. Unused tensors: {_some(unused)}."
        )
    params = {ours: file.read(theirs) for theirs, ours in wanted.items() if ours in _WHOLE}
    for ours, theirs in _LAYER.items():
        layers = [
            _assemble(ours, [file.read(f"blk.{i}.{t}") for t in theirs], decoder)
            for i in range(depth)
        ]
        params[f"text/decoder/stack/layers/{ours}"] = np.stack(layers)
    report = [f"{file.path}: {len(wanted)} tensors mapped, 0 missing, 0 unused"]
    report += [f"  {theirs} -> {ours}" for theirs, ours in wanted.items()]
    return config, params, "\n".join(report)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:10]) or "none"
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown


def init_from(path: str | Path, params: Any) -> tuple[Any, str]:
    """Initial parameters whose `text/...` are those of a GGUF file; the others stay as they are.

    Returns:
      the parameters, and a report that names every key: taken, kept.

    Raises:
      ValueError: a file that cannot be read, or of another model than `text/...`.
    """
    _, found, report = read(GGUF(path))
    ours = traverse_util.flatten_dict(params, sep="/")
    # What is put between the layers of a language model is no part of it.
    wanted = {
        k: tuple(v.shape)
        for k, v in ours.items()
        if k in found or (k.startswith("text/") and "/cross/" not in k)
    }
    compare({k: v.shape for k, v in found.items()}, wanted, f"GGUF file '{path}'")
    taken = {k: jax.device_put(v, ours[k].sharding) for k, v in found.items()}
    lines = [
        f"  {'taken' if k in found else 'kept '}   {k} {list(v.shape)}" for k, v in ours.items()
    ]
    return traverse_util.unflatten_dict(ours | taken, sep="/"), "\n".join([report, *lines])
