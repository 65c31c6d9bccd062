"""Whisper from CTranslate2's model.bin: the table of `whisper` with CTranslate2's names.

Source of names: CTranslate2, python/ctranslate2/converters/transformers.py (WhisperLoader) and
specs/{whisper,transformer}_spec.py.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.weights.families import whisper
from mmjax.weights.published import Published
from mmjax.weights.tensor_file import Tensors

IGNORED = whisper.IGNORED
model_config, rows, read_tokenizer = whisper.model_config, whisper.rows, whisper.read_tokenizer
SPEC = "WhisperSpec"
# Our activations in the order of CTranslate2's ActivationType (ops/activation.h).
ACTIVATIONS = ("relu", "gelu_new", "swish", "gelu", "quick_gelu")
# Their names of parts of a layer, and those of `transformers`; the maps that share a tensor.
NORMS = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "ffn/layer_norm": "final_layer_norm",
}
MAPS = {
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}
TOP = {
    "conv1": "conv1",
    "conv2": "conv2",
    "layer_norm": "layer_norm",
    "embeddings": "embed_tokens",
    "position_encodings": "embed_positions",
}
PARTS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
GENERATION = {
    "alignment_heads": "alignment_heads",
    "suppress_ids": "suppress_tokens",
    "suppress_ids_begin": "begin_suppress_tokens",
}
SETTINGS = ("encoder/num_heads", "decoder/num_heads", "decoder/activation")


class Separate:
    """The tensors under the names of `transformers`, with those of attention taken apart."""

    def __init__(self, tensors: Tensors):
        self._tensors, self.name = tensors, tensors.name
        self._place, self.shapes = {}, {}
        for name, shape in tensors.shapes.items():
            if not shape:  # a setting
                continue
            names = separate(name)
            for i, theirs in enumerate(names):
                # The biases of the keys are zeros, which Whisper does not have.
                if theirs is not None and not theirs.endswith("k_proj.bias"):
                    self._place[theirs] = (name, i, len(names))
                    self.shapes[theirs] = (shape[0] // len(names), *shape[1:])

    def read(self, name: str) -> np.ndarray:
        """One tensor in its stored dtype."""
        theirs, i, count = self._place[name]
        return np.split(self._tensors.read(theirs), count)[i]


def separate(name: str) -> list[str | None]:
    """The names in `transformers` of the parts of a tensor; [None]: of none there."""
    found = re.fullmatch(r"(encoder|decoder)/(?:layer_(\d+)/)?(\w+(?:/\w+)?)/(\w+)", name)
    if found is None:
        return [None]
    tower, layer, part, last = found.groups()
    if layer is None:
        part = TOP.get(part)
        return [f"{tower}.{part}.{PARTS.get(last, 'weight')}" if part else None]
    parts = (NORMS[part],) if part in NORMS else MAPS.get(part, ())
    return [f"{tower}.layers.{layer}.{x}.{PARTS[last]}" for x in parts] or [None]


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The folder with the names, sizes and settings of `transformers`, and notes.

    Raises:
      ValueError: a model of another kind.
    """
    file = found.tensors
    if file.spec != SPEC:
        raise ValueError(
            f"'{file.name}' holds a model of kind '{file.spec}'; '{SPEC}' can be read."
        )
    missing = set(SETTINGS) - file.shapes.keys()
    if missing:
        raise ValueError(f"'{file.name}' has no {min(missing)}: convert the model again.")
    encoder_heads, decoder_heads, act = (int(file.read(name)) for name in SETTINGS)
    if act >= len(ACTIVATIONS) or "decoder/projection/weight" in file.shapes:
        raise ValueError(
            f"'{file.name}' has activation {act} or a projection of its own, which no published "
            "Whisper has: it cannot be loaded."
        )
    tensors = Separate(file)
    config = {
        **found.config,
        **whisper.sizes(tensors.shapes),
        "encoder_attention_heads": encoder_heads,
        "decoder_attention_heads": decoder_heads,
        "activation_function": ACTIVATIONS[act],
    }
    return whisper.prepare(found._replace(tensors=tensors, config=config))


def read_generation(found: Published) -> Mapping[str, Any]:
    """What config.json says of generation, as generation_config.json says it."""
    return {theirs: found.config[x] for x, theirs in GENERATION.items() if x in found.config}
