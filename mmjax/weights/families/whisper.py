"""Whisper in the layouts of `transformers` (model_type "whisper") and of openai/whisper.

openai's tensors are read from safetensors; config.json then has openai's sizes (`dims` in its
checkpoints), or only the model_type: what is missing follows from the shapes.
"""

import re
from typing import Any

import numpy as np

from mmjax.data.text.special_tokens import special_tokens
from mmjax.data.text.tokenizer import Tokenizer
from mmjax.layers.position import sinusoids
from mmjax.models.whisper import Whisper
from mmjax.weights import activations, published, tokenizer
from mmjax.weights.layouts import Row, linear, merge_heads, norm, qkv, same, split_heads
from mmjax.weights.published import Published

SYSTEM = "whisper"
POSITIONS = "encoder.embed_positions.weight"
# The fixed positions of the encoder, and the words of the output, which are tied to those of the
# input.
IGNORED = (r"encoder\.embed_positions\.weight", r"proj_out\.weight")

# Settings that config.json may omit: defaults of WhisperConfig.
SETTINGS = {
    "vocab_size": 51865,
    "num_mel_bins": 80,
    "d_model": 384,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_layers": 4,
    "decoder_attention_heads": 6,
    "decoder_ffn_dim": 1536,
    "max_source_positions": 1500,
    "max_target_positions": 448,
    "activation_function": "gelu",
}
# Settings that change the computation, with the only value that our model supports.
FIXED = {"scale_embedding": False, "tie_word_embeddings": True}
# The features of all models; see `data.transforms.spectrogram.whisper`.
FEATURES = {"sampling_rate": 16000, "n_fft": 400, "hop_length": 160}
START, NO_TIMESTAMPS = "<|startoftranscript|>", "<|notimestamps|>"
HEAD_DIM = 64  # of all that openai has published; shapes do not tell it
# Names of openai/whisper's tensors, and those of `transformers`.
NAMES = (
    (r"^(encoder|decoder)\.blocks\.", r"\1.layers."),
    (r"\.attn\.", ".self_attn."),
    (r"\.cross_attn\.", ".encoder_attn."),
    (r"_attn\.query\.", "_attn.q_proj."),
    (r"_attn\.key\.", "_attn.k_proj."),
    (r"_attn\.value\.", "_attn.v_proj."),
    (r"_attn\.out\.", "_attn.out_proj."),
    (r"\.attn_ln\.", ".self_attn_layer_norm."),
    (r"\.cross_attn_ln\.", ".encoder_attn_layer_norm."),
    (r"\.mlp_ln\.", ".final_layer_norm."),
    (r"\.mlp\.0\.", ".fc1."),
    (r"\.mlp\.2\.", ".fc2."),
    (r"^encoder\.ln_post\.", "encoder.layer_norm."),
    (r"^decoder\.ln\.", "decoder.layer_norm."),
    (r"^decoder\.token_embedding\.", "decoder.embed_tokens."),
    (r"\.positional_embedding$", ".embed_positions.weight"),
)
# The sizes in openai's checkpoints, and those of `transformers`.
DIMS = {
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
}


def canonical(name: str) -> str:
    """The name of a tensor in `rows`: that of `transformers`' model without a head."""
    name = name.removeprefix("model.")
    for theirs, ours in NAMES:
        name = re.sub(theirs, ours, name)
    return name


def published_name(name: str, model: Whisper) -> str:
    """The name of a tensor in the files of WhisperForConditionalGeneration."""
    del model
    return f"model.{name}"


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The folder with the sizes that its config.json leaves out, and notes for the report.

    Raises:
      ValueError: other positions in the encoder than the fixed ones.
    """
    notes = []
    shapes = found.tensors.shapes
    if POSITIONS in shapes:
        given = found.tensors.read(POSITIONS).astype(np.float32)
        if np.abs(given - sinusoids(*given.shape)).max() > 2e-3:  # they may be in bfloat16
            raise ValueError(
                f"{POSITIONS} of '{found.tensors.name}' differs from the sinusoids, which are the "
                "only positions of the audio that our model has."
            )
    config = {name: x for name, x in found.config.items() if name not in DIMS}
    given = {ours: found.config[theirs] for theirs, ours in DIMS.items() if theirs in found.config}
    if "d_model" not in config and "decoder.embed_tokens.weight" in shapes:
        config = {**sizes(shapes), **given, **config}
        notes = ["sizes are those of the tensors, where config.json has none"]
    return found._replace(config=config), notes


def sizes(shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Settings of `transformers` that follow from the shapes of a model."""
    vocabulary, width = shapes["decoder.embed_tokens.weight"]
    towers = {
        f"{name}_layers": len({k.split(".")[2] for k in shapes if k.startswith(f"{name}.layers.")})
        for name in ("encoder", "decoder")
    }
    inner = {f"{x}_ffn_dim": shapes[f"{x}.layers.0.fc1.weight"][0] for x in ("encoder", "decoder")}
    heads = {f"{x}_attention_heads": max(1, width // HEAD_DIM) for x in ("encoder", "decoder")}
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "num_mel_bins": shapes["encoder.conv1.weight"][1],
        "max_source_positions": shapes.get(POSITIONS, (1500,))[0],
        "max_target_positions": shapes["decoder.embed_positions.weight"][0],
        **towers,
        **inner,
        **heads,
    }


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a published folder.

    Raises:
      ValueError: settings that our model does not support.
    """
    published.check_fixed(found, FIXED)
    path = found.folder / published.PREPROCESSOR
    for name, value in FEATURES.items():
        if (found.preprocessor or {}).get(name, value) != value:
            raise ValueError(
                f"'{path}' has {name} {found.preprocessor[name]}; only features with {value} can "
                "be made."
            )
    s = published.settings(found.config, SETTINGS, found.folder / published.CONFIG)
    act = activations.read(s["activation_function"], "activation_function")

    def stack(name: str) -> dict[str, Any]:
        return {
            "depth": s[f"{name}_layers"],
            "heads": s[f"{name}_attention_heads"],
            "mlp_dim": s[f"{name}_ffn_dim"],
            "activation": act,
        }

    audio = {"mels": s["num_mel_bins"], "length": s["max_source_positions"]}
    text = {"vocab_size": s["vocab_size"], "length": s["max_target_positions"]}
    width = {"width": s["d_model"]}
    return {
        "name": "whisper",
        "audio": {**audio, **width, **stack("encoder")},
        "text": {**text, **width, "decoder": stack("decoder")},
    }


def read_tokenizer(found: Published) -> Tokenizer | None:
    """The tokenizer of the folder; its texts begin with `START`."""
    words = tokenizer.read(found.folder)
    if words is not None:
        words.bos_id = words.token_id(START)
    return words


def read_generation(found: Published) -> dict[str, Any]:
    """The content of generation_config.json."""
    return tokenizer.read_generation(found.folder)


def rows(model: Whisper) -> list[Row]:
    """The rename table of a model."""
    audio, text = model.audio_encoder(parent=None), model.text_decoder(parent=None)
    heads = text.stack(parent=None).heads
    encoder, decoder = "audio/transformer/layers", "text/decoder/stack/layers"
    cross, theirs = "text/decoder/stack/cross", "decoder.layers.{i}"
    return [
        *_convolution("audio/convolution0", "encoder.conv1"),
        *_convolution("audio/convolution1", "encoder.conv2"),
        *_block_rows(encoder, "encoder.layers.{i}", audio.heads),
        *norm("audio/norm", "encoder.layer_norm"),
        *same("text/embed/embedding", "decoder.embed_tokens.weight"),
        *same("text/decoder/position/table", "decoder.embed_positions.weight"),
        *_block_rows(decoder, theirs, heads),
        *norm(f"{cross}/norm_attention", f"{theirs}.encoder_attn_layer_norm"),
        *split_heads(f"{cross}/attention/query", f"{theirs}.encoder_attn.q_proj", heads),
        *_qkv(f"{cross}/attention/key_value", f"{theirs}.encoder_attn", "kv", heads),
        *merge_heads(f"{cross}/attention/out", f"{theirs}.encoder_attn.out_proj", heads),
        *norm("text/decoder/norm", "decoder.layer_norm"),
    ]


def _block_rows(ours: str, theirs: str, heads: int) -> list[Row]:
    """Self-attention and the MLP of the layers of a tower."""
    return [
        *norm(f"{ours}/norm_attention", f"{theirs}.self_attn_layer_norm"),
        *_qkv(f"{ours}/attention/qkv", f"{theirs}.self_attn", "qkv", heads),
        *merge_heads(f"{ours}/attention/out", f"{theirs}.self_attn.out_proj", heads),
        *norm(f"{ours}/norm_mlp", f"{theirs}.final_layer_norm"),
        *linear(f"{ours}/mlp/up", f"{theirs}.fc1"),
        *linear(f"{ours}/mlp/down", f"{theirs}.fc2"),
    ]


def _qkv(ours: str, theirs: str, parts: str, heads: int) -> list[Row]:
    """The maps in `parts` ("qkv" or "kv"), of which all but that of the keys have a bias."""
    kernels = qkv(ours, [f"{theirs}.{x}_proj" for x in parts], heads, bias=False)
    biased = [f"{theirs}.{x}_proj" for x in parts if x != "k"]
    return kernels + qkv(ours, biased, heads)[1:]


def _convolution(ours: str, theirs: str) -> list[Row]:
    """`weight` [out, in, WINDOW] -> `kernel` [WINDOW, in, out]."""

    def flip(x):
        return (x.transpose(2, 1, 0),)

    kernel = Row((f"{ours}/kernel",), (f"{theirs}.weight",), flip, flip)
    return [kernel, *same(f"{ours}/bias", f"{theirs}.bias")]


def published_config(model: Whisper) -> dict[str, Any]:
    """config.json for one of our models.

    Raises:
      ValueError: settings that a published Whisper cannot have.
    """
    audio, text = model.audio_encoder(parent=None), model.text_decoder(parent=None)
    stack = text.stack(parent=None)
    kind = {
        "norm": "layer",
        "gated_mlp": False,
        "positions": "learned",
        "sliding_window": None,
        "cross_every": 1,
        "final_norm": True,
        "epsilon": audio.epsilon,
        "key_bias": False,
        "activation": audio.activation,
        "kv_heads": None,
        "head_dim": None,
        **dict.fromkeys(stack.biases, True),
    }
    has = {k: stack.biases[k] if k in stack.biases else getattr(stack, k) for k in kind}
    published.check_settings(
        "whisper",
        {
            **{f"text.decoder.{k}": (has[k], value) for k, value in kind.items()},
            "audio.epsilon": (audio.epsilon, 1e-5),
            "text.width": (text.width, audio.width),
            "text.tied": (text.tied, True),
            "text.word_head": (text.word_head, False),
        },
    )
    return {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "is_encoder_decoder": True,
        "vocab_size": text.vocab_size,
        "num_mel_bins": audio.mels,
        "d_model": audio.width,
        "encoder_layers": audio.depth,
        "encoder_attention_heads": audio.heads,
        "encoder_ffn_dim": audio.mlp_dim,
        "decoder_layers": stack.depth,
        "decoder_attention_heads": stack.heads,
        "decoder_ffn_dim": stack.mlp_dim,
        "max_source_positions": audio.length,
        "max_target_positions": text.length,
        "activation_function": activations.write(audio.activation),
    }


def complete_config(config: dict[str, Any], pretrained: Any) -> dict[str, Any]:
    """config.json with special tokens: a text begins with decoder_start_token_id."""
    return config | {**pretrained.kept, **_ids(pretrained)}


def published_generation(pretrained: Any) -> dict[str, Any]:
    """generation_config.json, with the special tokens of the tokenizer."""
    # Without them transformers ends a text at 20 tokens, and lets it begin anywhere.
    limits = {"max_length": pretrained.model.window, "max_initial_timestamp_index": 50}
    given = {**limits, **pretrained.generation, **_ids(pretrained)}
    words = pretrained.tokenizer
    if words is None or words.token_id(NO_TIMESTAMPS) is None:
        return given
    special = special_tokens(words, given)
    given |= {
        "is_multilingual": bool(special.languages),
        "no_timestamps_token_id": special.no_timestamps,
        "prev_sot_token_id": special.previous,
    }
    if special.languages:
        languages = {f"<|{name}|>": i for name, i in special.languages.items()}
        given |= {"lang_to_id": languages, "task_to_id": dict(special.tasks)}
    return given


def _ids(pretrained: Any) -> dict[str, int]:
    """Special tokens as `transformers` names them: its texts begin and end with the end token,
    after the one that starts all of them."""
    words = pretrained.tokenizer
    if words is None:
        return {}
    ids = {f"{role}_token_id": words.eos_id for role in ("bos", "eos", "pad")}
    return ids if words.bos_id is None else ids | {"decoder_start_token_id": words.bos_id}


def published_files(pretrained: Any) -> dict[str, Any]:
    """The settings of the features, and those of the tokenizer, for `transformers`' classes."""
    audio, words = pretrained.model.audio_encoder(parent=None), pretrained.tokenizer
    frames = 2 * audio.length
    features = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": audio.mels,
        "chunk_length": frames * FEATURES["hop_length"] // FEATURES["sampling_rate"],
        "n_samples": frames * FEATURES["hop_length"],
        "nb_max_frames": frames,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
        **FEATURES,
    }
    files = {published.PREPROCESSOR: features}
    if words is None or words.token_id(NO_TIMESTAMPS) is None:
        return files
    end = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    length = {"model_max_length": pretrained.text_length}
    settings = {"tokenizer_class": "WhisperTokenizer", **length, **end}
    return files | {tokenizer.SETTINGS: settings}


def buffers(model: Whisper) -> dict[str, np.ndarray]:
    """The fixed positions of the encoder."""
    audio = model.audio_encoder(parent=None)
    return {POSITIONS: sinusoids(audio.length, audio.width)}
