"""Llama-style language models from GGUF files: the table of `llama` with llama.cpp's names."""

from typing import Any

import numpy as np
from einops import rearrange

from mmjax.data.text.tokenizer import Tokenizer
from mmjax.models.language import LanguageModel
from mmjax.weights import gguf_tokenizer
from mmjax.weights.families import llama
from mmjax.weights.gguf import GGUF
from mmjax.weights.layouts import Row
from mmjax.weights.published import Published

IGNORED = ()
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


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the language model in a GGUF file.

    Raises:
      ValueError: another architecture, or settings that are missing or not supported.
    """
    path, metadata = found.folder, found.config
    kind = metadata.get("general.architecture")
    if kind != "llama":
        raise ValueError(f"'{path}' holds a model of kind '{kind}'; 'llama' can be read.")
    scaling = [k for k in metadata if k.startswith("llama.rope.scal")]
    if scaling:
        raise ValueError(f"'{path}' scales its rotary positions ({', '.join(scaling)}).")

    def get(name, default=None):
        value = metadata.get(f"llama.{name}", default)
        if value is None:
            raise ValueError(f"'llama.{name}' is missing in the metadata of '{path}'.")
        return value

    heads, width = get("attention.head_count"), get("embedding_length")
    head_dim = get("attention.key_length", width // heads)
    if get("rope.dimension_count", head_dim) != head_dim:
        raise ValueError(
            f"'{path}' rotates {get('rope.dimension_count')} of {head_dim} dimensions of a "
            "head; only rotary positions of whole heads can be read."
        )
    shapes = found.tensors.shapes
    if "token_embd.weight" not in shapes:
        raise ValueError(f"'{path}' is not a complete model: 'token_embd.weight' is missing.")
    return llama.decoder_config(
        vocab_size=shapes["token_embd.weight"][0],
        width=width,
        length=get("context_length"),
        tied="output.weight" not in shapes,
        depth=get("block_count"),
        heads=heads,
        kv_heads=get("attention.head_count_kv", heads),
        head_dim=head_dim,
        mlp_dim=get("feed_forward_length"),
        epsilon=get("attention.layer_norm_rms_epsilon"),
        rope_base=get("rope.freq_base", 10_000.0),
    )


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
    table = []
    for row in llama.rows(model):
        theirs = tuple(_name(name) for name in row.theirs)
        read = row.read if len(theirs) == 1 else _qkv_reader(row, model)
        table.append(row._replace(theirs=theirs, read=read))
    return table


def _name(theirs: str) -> str:
    for name, other in NAMES.items():
        theirs = theirs.replace(name, other)
    return theirs


def _qkv_reader(row: Row, model: LanguageModel):
    """The reader of a row of queries, keys and values, with queries and keys in our rotary layout.

    llama.cpp rotates pairs of neighboring rows of a head; our pairs, as in the original weights,
    are formed across its two halves.
    """
    stack = model.text_decoder(parent=None).stack(parent=None)

    def halves(x: np.ndarray, heads: int) -> np.ndarray:
        return rearrange(x, "(head pair two) d -> (head two pair) d", head=heads, two=2)

    def read(query, key, value):
        kv_heads = stack.kv_heads or stack.heads
        return row.read(halves(query, stack.heads), halves(key, kv_heads), value)

    return read
