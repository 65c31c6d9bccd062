"""Activation names in config.json, and our names for them."""

NAMES = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
}
_BACK = {ours: theirs for theirs, ours in NAMES.items()} | {"silu": "silu"}


def read(name: str, where: str) -> str:
    """Our name of a published activation.

    Raises:
      ValueError: an unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"{where} is '{name}'; these can be read: {', '.join(NAMES)}.")
    return NAMES[name]


def write(name: str) -> str:
    """The published name of one of our activations."""
    return _BACK[name]
