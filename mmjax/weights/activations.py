"""Activation names in config.json, and our names for them.

Several names of `transformers` are one function in several implementations.
"""

NAMES = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_BACK = {ours: ours for ours in NAMES.values()} | {"gelu_tanh": "gelu_pytorch_tanh"}


def read(name: str, where: str) -> str:
    """Our name of a published activation.

    Raises:
      ValueError: an unknown name.
    """
    if not isinstance(name, str) or name not in NAMES:
        raise ValueError(f"{where} is '{name}'; these can be read: {', '.join(NAMES)}.")
    return NAMES[name]


def write(name: str) -> str:
    """The published name of one of our activations."""
    return _BACK[name]
