"""GPT-2 in the layout of `transformers` (model_type "gpt2")."""

from typing import Any

from mmjax.data.text.tokenizer import Tokenizer
from mmjax.models.language import LanguageModel
from mmjax.weights import activations, head, published, schema, tokenizer
from mmjax.weights.families import llama
from mmjax.weights.layouts import Arrays, Row, norm, reshaped, same
from mmjax.weights.published import Published

SYSTEM = "language_model"
# The causal masks in the published files.
IGNORED = (r"h\.\d+\.attn\.(masked_)?bias",)
HEAD = head.Head("lm_head.weight", "wte.weight", True, ("GPT2Model",))

# Settings that config.json may omit: defaults of GPT2Config.
SETTINGS = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": schema.Maybe(1),
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
}
# Settings that change the computation, with the only value that our decoder supports.
FIXED = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The folder with the head that its files have, and notes for the report."""
    return head.resolve(found, HEAD)


def canonical(name: str) -> str:
    """The name of a tensor in `rows`: newer files have the prefix "transformer."."""
    return name.removeprefix("transformer.")


def published_name(name: str, model: LanguageModel) -> str:
    """The inverse of `canonical`: the prefix where there is a head of its own."""
    tied = model.text_decoder(parent=None).tied
    return name if tied or name == HEAD.name else f"transformer.{name}"


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our decoder does not support.
    """
    published.check_fixed(found, FIXED)
    s = published.settings(found.config, SETTINGS, found.folder / published.CONFIG)
    return llama.language_model(
        s["vocab_size"],
        s["n_embd"],
        s["n_positions"],
        s[head.TIED],
        head.is_bare(found, HEAD),
        depth=s["n_layer"],
        heads=s["n_head"],
        mlp_dim=s["n_inner"] or 4 * s["n_embd"],
        epsilon=s["layer_norm_epsilon"],
        activation=activations.read(s["activation_function"], "activation_function"),
        positions="learned",
    )


def read_tokenizer(found: Published) -> Tokenizer | None:
    """The tokenizer of the folder, without a begin token."""
    return tokenizer.read_for_generation(found.folder, begins=False)


def read_generation(found: Published) -> dict[str, Any]:
    """The content of generation_config.json."""
    return tokenizer.read_generation(found.folder)


def rows(model: LanguageModel) -> list[Row]:
    """The rename table of a model. Its linear maps are [in, out], as ours."""
    text = model.text_decoder(parent=None)
    heads = text.decoder["heads"]
    layer, block = "h.{i}", "text/decoder/stack/layers"
    table = [
        *same("text/embed/embedding", HEAD.embedding),
        *same("text/decoder/position/table", "wpe.weight"),
        *norm(f"{block}/norm_attention", f"{layer}.ln_1"),
        *_qkv(f"{block}/attention/qkv", f"{layer}.attn.c_attn", heads),
        *reshaped(
            f"{block}/attention/out/kernel",
            f"{layer}.attn.c_proj.weight",
            (heads, -1, text.width),
            (-1, text.width),
        ),
        *same(f"{block}/attention/out/bias", f"{layer}.attn.c_proj.bias"),
        *norm(f"{block}/norm_mlp", f"{layer}.ln_2"),
        *norm("text/decoder/norm", "ln_f"),
    ]
    for ours, theirs in (("up", "c_fc"), ("down", "c_proj")):
        table += same(f"{block}/mlp/{ours}/kernel", f"{layer}.mlp.{theirs}.weight")
        table += same(f"{block}/mlp/{ours}/bias", f"{layer}.mlp.{theirs}.bias")
    return table if text.tied else [*table, *same("text/embed/head", HEAD.name)]


def _qkv(ours: str, theirs: str, heads: int) -> list[Row]:
    """`weight` [in, 3 · H · D] and `bias` -> [in, 3, H, D] and [3, H, D]."""

    def read(x) -> Arrays:
        return (x.reshape(*x.shape[:-1], 3, heads, -1),)

    def write(x) -> Arrays:
        return (x.reshape(*x.shape[:-3], -1),)

    parts = {"kernel": "weight", "bias": "bias"}
    return [Row((f"{ours}/{o}",), (f"{theirs}.{t}",), read, write) for o, t in parts.items()]


def published_config(model: LanguageModel) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a GPT-2 cannot have.
    """
    text = model.text_decoder(parent=None)
    stack = text.stack(parent=None)
    kind = {"norm": "layer", "gated_mlp": False, "positions": "learned", "sliding_window": None}
    llama.check_decoder("gpt2", text, **kind, **dict.fromkeys(stack.biases, True))
    head_dim = text.width // stack.heads
    sizes = {
        "text.decoder.kv_heads": (stack.kv_heads or stack.heads, stack.heads),
        "text.decoder.head_dim": (stack.head_dim or head_dim, head_dim),
    }
    published.check_settings("gpt2", sizes)
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel" if model.head else HEAD.bare[0]],
        "vocab_size": text.vocab_size,
        "n_positions": text.length,
        "n_embd": text.width,
        "n_layer": stack.depth,
        "n_head": stack.heads,
        "n_inner": stack.mlp_dim,
        "activation_function": activations.write(stack.activation),
        "layer_norm_epsilon": stack.epsilon,
        head.TIED: text.tied and model.head,
    }
