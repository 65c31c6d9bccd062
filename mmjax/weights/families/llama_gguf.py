"""Llama-style language models from GGUF files: the table of `llama`, under llama.cpp's names."""

from typing import Any

import numpy as np
import tokenizers as hf
from tokenizers import decoders, models, pre_tokenizers

from mmjax.data.text.tokenizer import Tokenizer
from mmjax.models.language import LanguageModel
from mmjax.weights.families import llama
from mmjax.weights.gguf import GGUF
from mmjax.weights.layouts import Row
from mmjax.weights.published import Published

IGNORED = ()
_CONTROL, _USER_DEFINED = 3, 4  # of tokenizer.ggml.token_type
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
      ValueError: another architecture, settings that are missing, or that our decoder lacks.
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
            raise ValueError(f"'{path}' lacks 'llama.{name}' in its metadata.")
        return value

    heads, width = get("attention.head_count"), get("embedding_length")
    head_dim = get("attention.key_length", width // heads)
    if get("rope.dimension_count", head_dim) != head_dim:
        raise ValueError(
            f"'{path}' turns {get('rope.dimension_count')} of {head_dim} dimensions of a "
            "head; only rotary positions of whole heads can be read."
        )
    shapes = found.tensors.shapes
    if "token_embd.weight" not in shapes:
        raise ValueError(f"'{path}' is no whole model: it lacks 'token_embd.weight'.")
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
    return from_gguf(found.folder)


def from_gguf(path):
    """The byte-level BPE tokenizer that a GGUF file holds for its language model.

    Its control tokens, such as <|im_start|>, are read as such where a text spells them. Rows begin
    with the begin token only if the file says so.

    Raises:
      ValueError: the file holds no such tokenizer, or one whose words are split in another way.
    """
    metadata = GGUF(path).metadata
    kind = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    if kind[0] != "gpt2" or kind[1] not in ("default", "gpt-2", "smollm"):
        raise ValueError(
            f"'{path}' has a tokenizer of kind {kind}; 'gpt2' and 'smollm' can be read"
        )
    names = ("tokens", "merges", "eos_token_id")
    tokens, merges, eos_id = (metadata.get(f"tokenizer.ggml.{name}") for name in names)
    if tokens is None or merges is None or eos_id is None:
        raise ValueError(f"'{path}' lacks one of tokenizer.ggml.{{{','.join(names)}}}")
    vocab = {token: i for i, token in enumerate(tokens)}
    try:
        model = models.BPE(vocab=vocab, merges=[tuple(m.split(" ")) for m in merges])
    except Exception as error:  # the library raises a bare Exception
        raise ValueError(f"'{path}' has no whole BPE vocabulary: {error}") from None
    backend = hf.Tokenizer(model)
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", False)
    steps = [pre_tokenizers.ByteLevel(add_prefix_space=prefix)]
    if kind[1] == "smollm":  # each digit is a word
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    types = metadata.get("tokenizer.ggml.token_type", [])
    special = [t for t, kind in zip(tokens, types) if kind in (_CONTROL, _USER_DEFINED)]
    backend.add_special_tokens(special)
    bos_id = metadata.get("tokenizer.ggml.bos_token_id")
    return Tokenizer(
        backend,
        pad_id=metadata.get("tokenizer.ggml.padding_token_id", eos_id),
        bos_id=bos_id if metadata.get("tokenizer.ggml.add_bos_token") else None,
        eos_id=eos_id,
    )


def rows(model: LanguageModel) -> list[Row]:
    """The rename table of a model; it can only be read by it."""
    table = []
    for row in llama.rows(model):
        theirs = tuple(_name(name) for name in row.theirs)
        read = row.read if len(theirs) == 1 else _turning(row, model)
        table.append(row._replace(theirs=theirs, read=read))
    return table


def _name(theirs: str) -> str:
    for name, other in NAMES.items():
        theirs = theirs.replace(name, other)
    return theirs


def _turning(row: Row, model: LanguageModel):
    """The reader of a row of queries, keys and values, with the first two in our order.

    llama.cpp rotates neighbouring rows of a head; our pairs, as those of the original weights, are
    its two halves.
    """
    stack = model.text_decoder(parent=None).stack(parent=None)

    def halves(x: np.ndarray, heads: int) -> np.ndarray:
        x = x.reshape(heads, -1, 2, x.shape[-1])
        return x.swapaxes(1, 2).reshape(-1, x.shape[-1])

    def read(query, key, value):
        kv_heads = stack.kv_heads or stack.heads
        return row.read(halves(query, stack.heads), halves(key, kv_heads), value)

    return read
