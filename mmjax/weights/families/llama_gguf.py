"""Llama and Qwen2 language models from GGUF files: the table of `llama` with llama.cpp's names.

Source of names and defaults: llama.cpp, src/llama-arch.cpp and src/llama-model.cpp.
"""

import math
import re
from typing import Any

import numpy as np
from einops import rearrange

from mmjax.data.text.tokenizer import Tokenizer
from mmjax.models.language import LanguageModel
from mmjax.weights import gguf_tokenizer, schema
from mmjax.weights.families import llama
from mmjax.weights.gguf import GGUF
from mmjax.weights.layouts import Row
from mmjax.weights.published import Published
from mmjax.weights.rope import ORIGINAL
from mmjax.weights.tensor_file import Renamed, Tensors

IGNORED = ()
# Settings of an architecture, with values of their types (see `schema`).
SETTINGS = {
    "attention.head_count": 32,
    "attention.head_count_kv": 32,
    "attention.key_length": 128,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "block_count": 32,
    "context_length": 2048,
    "embedding_length": 4096,
    "feed_forward_length": 11008,
    "rope.dimension_count": 128,
    "rope.freq_base": 10_000.0,
    "rope.scale_linear": 1.0,
}
_SCALING = {"factor": 1.0, "original_context_length": 2048, "finetuned": True, "type": "linear"}
_SCALING |= dict.fromkeys(("attn_factor", "yarn_beta_fast", "yarn_beta_slow"), 1.0)
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.{i}": "blk.{i}",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
# Divisors of the rotary frequencies, and where `prepare` puts them.
FACTORS, DIVISORS = "rope_freqs.weight", "rope_freqs"


class Halves:
    """The tensors of a Llama, with queries and keys in our rotary layout.

    llama.cpp rotates pairs of neighboring rows of a head; our pairs, as in the original weights,
    are formed across its two halves.

    Args:
      heads: of the queries and of the keys.
    """

    def __init__(self, tensors: Tensors, heads: dict[str, int]):
        self._tensors, self._heads = tensors, heads
        self.name, self.shapes = tensors.name, tensors.shapes

    def read(self, name: str) -> np.ndarray:
        """One tensor in float32."""
        x = self._tensors.read(name)
        found = re.fullmatch(r"blk\.\d+\.attn_([qk])\.(weight|bias)", name)
        if found is None or len(x) % (2 * self._heads[found[1]]):
            return x
        heads = self._heads[found[1]]
        return rearrange(x, "(head pair two) ... -> (head two pair) ...", head=heads, two=2)


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The file with our rotary layout, its divisors of frequencies in `config`, and notes.

    Raises:
      ValueError: another architecture.
    """
    kind, tensors, config, notes = _architecture(found), found.tensors, found.config, []
    if kind == "llama":  # llama.cpp rotates a Qwen2 as we do
        heads = _get(found, "attention.head_count")
        kv_heads = _get(found, "attention.head_count_kv", heads)
        tensors = Halves(tensors, {"q": heads, "k": kv_heads})
    if FACTORS in tensors.shapes:
        config = config | {DIVISORS: tuple(tensors.read(FACTORS).ravel().tolist())}
        tensors = Renamed(tensors, lambda name: None if name == FACTORS else name)
        notes = [f"{FACTORS} divides the rotary frequencies"]
    return found._replace(tensors=tensors, config=config), notes


def _architecture(found: Published) -> str:
    kind = found.config.get("general.architecture")
    if kind not in ("llama", "qwen2"):
        raise ValueError(
            f"'{found.folder}' holds a model of kind '{kind}'; 'llama' and 'qwen2' can be read."
        )
    return kind


def _get(found: Published, name: str, default: Any = None) -> Any:
    """A setting of the architecture; raises ValueError if it is missing without a default."""
    name = f"{_architecture(found)}.{name}"
    value = found.config.get(name, default)
    if value is None:
        raise ValueError(f"'{name}' is missing in the metadata of '{found.folder}'.")
    return schema.check(name, value, SETTINGS[name.partition(".")[2]], found.folder)


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the language model in a GGUF file.

    Raises:
      ValueError: settings that are missing or not supported.
    """
    path = found.folder
    heads, width = _get(found, "attention.head_count"), _get(found, "embedding_length")
    head_dim = _get(found, "attention.key_length", width // heads)
    rotated = _get(found, "rope.dimension_count", head_dim)
    if rotated != head_dim:
        raise ValueError(
            f"'{path}' rotates {rotated} of {head_dim} dimensions of a head; only rotary positions "
            "of whole heads can be read."
        )
    shapes = found.tensors.shapes
    if "token_embd.weight" not in shapes:
        raise ValueError(f"'{path}' is not a complete model: 'token_embd.weight' is missing.")
    biases = {"qkv_bias": "attn_q", "out_bias": "attn_output", "mlp_bias": "ffn_up"}
    scaling = _scaling(found)
    return llama.decoder_config(
        vocab_size=shapes["token_embd.weight"][0],
        width=width,
        length=_get(found, "context_length"),
        tied="output.weight" not in shapes,
        depth=_get(found, "block_count"),
        heads=heads,
        kv_heads=_get(found, "attention.head_count_kv", heads),
        head_dim=head_dim,
        mlp_dim=_get(found, "feed_forward_length"),
        epsilon=_get(found, "attention.layer_norm_rms_epsilon"),
        rope_base=_get(found, "rope.freq_base", 10_000.0),
        **{ours: True for ours, name in biases.items() if f"blk.0.{name}.bias" in shapes},
        **({} if scaling is None else {"rope_scaling": scaling}),
    )


def _scaling(found: Published) -> dict[str, Any] | None:
    """Our decoder's `rope_scaling`.

    Raises:
      ValueError: a scaling that it does not have.
    """
    kind = _architecture(found)
    prefix = f"{kind}.rope.scaling."
    given = {k[len(prefix) :]: v for k, v in found.config.items() if k.startswith(prefix)}
    for name, value in given.items():
        schema.check(name, value, _SCALING.get(name), found.folder)
    given.pop("finetuned", None)  # whether the model was trained so
    scales = given.pop("type", "linear")
    factor = given.pop("factor", None) or _get(found, "rope.scale_linear", 1.0)
    if factor <= 0:
        raise ValueError(f"'{found.folder}' scales its rotary positions by {factor}.")
    original = given.pop("original_context_length", None) or _get(found, "context_length")
    divisors = found.config.get(DIVISORS)
    if scales == "yarn" and not divisors:
        scaling = {"rope_type": "yarn", "factor": factor, ORIGINAL: original}
        if "attn_factor" in given:
            scaling["attention_factor"] = given.pop("attn_factor") * (0.1 * math.log(factor) + 1)
        for name in ("beta_fast", "beta_slow"):
            if f"yarn_{name}" in given:
                scaling[name] = given.pop(f"yarn_{name}")
    elif scales in ("none", "linear"):
        factor = 1.0 if scales == "none" else factor
        scaling = None if factor == 1 else {"rope_type": "linear", "factor": factor}
        if divisors:
            scaling = {"rope_type": "factors", "factors": tuple(factor * x for x in divisors)}
    if given or scales not in ("none", "linear", "yarn") or (scales == "yarn" and divisors):
        other = ", ".join([f"'{scales}'", *given, *([FACTORS] if divisors else [])])
        raise ValueError(
            f"'{found.folder}' scales its rotary positions by {other}; 'linear', 'yarn', or "
            f"{FACTORS} without 'yarn' can be read."
        )
    return scaling


def read_tokenizer(found: Published) -> Tokenizer:
    """The tokenizer in the file."""
    return gguf_tokenizer.read(found.folder, found.config)


def from_gguf(path: str) -> Tokenizer:
    """The tokenizer of the language model in a GGUF file.

    Raises:
      ValueError: no such file, or one whose tokenizer is missing or of an unknown kind.
    """
    return gguf_tokenizer.read(path, GGUF(path).metadata)


def rows(model: LanguageModel) -> list[Row]:
    """The rename table of a model, for reading only."""
    return [row._replace(theirs=tuple(map(_name, row.theirs))) for row in llama.rows(model)]


def _name(theirs: str) -> str:
    for name, other in NAMES.items():
        theirs = theirs.replace(name, other)
    return theirs
