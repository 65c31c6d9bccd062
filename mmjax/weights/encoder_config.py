"""The settings of a transformer encoder in config.json, and our fields for them."""

from collections.abc import Mapping
from typing import Any

from mmjax.models.encoder import Encoder
from mmjax.models.tower import Tower
from mmjax.weights import activations

# Settings that config.json may omit: what most of transformers' configs have by default.
DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}


def read(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields that every `Tower` and `Encoder` has, from config.json or a section of it.

    Args:
      where: the name of the section, for messages.

    Raises:
      ValueError: an activation that we lack.
    """
    return {
        "width": settings["hidden_size"],
        "depth": settings["num_hidden_layers"],
        "heads": settings["num_attention_heads"],
        "mlp_dim": settings["intermediate_size"],
        "activation": activations.read(settings["hidden_act"], f"{where}.hidden_act"),
        "norm_epsilon": settings["layer_norm_eps"],
    }


def write(encoder: Tower | Encoder) -> dict[str, Any]:
    """The inverse of `read`."""
    sizes = encoder.sizes
    return {
        "hidden_size": sizes["width"],
        "num_hidden_layers": sizes["depth"],
        "num_attention_heads": sizes["heads"],
        "intermediate_size": sizes["mlp_dim"],
        "hidden_act": activations.write(encoder.activation),
        "layer_norm_eps": encoder.norm_epsilon,
    }
