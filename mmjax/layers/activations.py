"""Activation functions by name."""

import functools

import jax


def quick_gelu(x: jax.Array) -> jax.Array:
    """x · sigmoid(1.702 x): the activation of OpenAI's CLIP weights (openai/CLIP, model.py)."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": quick_gelu,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "silu": jax.nn.silu,
}


def activation(name: str):
    """The activation function of that name.

    Raises:
      ValueError: an unknown name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"Unknown activation '{name}'; use one of {sorted(ACTIVATIONS)}.")
    return ACTIVATIONS[name]
