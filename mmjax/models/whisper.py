"""Whisper: an audio encoder, and a text decoder that transcribes or translates what it hears."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.data.text.special_tokens import prompt
from mmjax.layers.linear import Linear
from mmjax.layers.norm import LayerNorm
from mmjax.layers.position import sinusoids
from mmjax.layers.transformer import Transformer
from mmjax.models import language
from mmjax.models.build import build
from mmjax.models.text_decoder import GeneratesText, TextDecoder, decode_text, make_text_decoder
from mmjax.sharding import shard
from mmjax.system import System, Variables

WINDOW = 3  # frames that a convolution sees


class AudioEncoder(nn.Module):
    """A log-mel spectrogram [B, frames, mels] -> tokens [B, frames / 2 rounded up, width].

    Two convolutions over time, of which the second halves the length, fixed positions and a
    transformer. A shorter spectrogram gives fewer tokens.

    Attributes:
      length: maximum number of tokens, half that of frames.
      activation: of the transformer; that of the convolutions is always GELU.
      stochastic_depth, remat: see `Transformer`.

    Raises:
      ValueError: more frames than fit.

    Source: Radford et al. 2022 (arXiv 2212.04356), section 2.2; openai/whisper, model.py.
    """

    mels: int
    length: int
    width: int
    depth: int
    heads: int
    mlp_dim: int
    activation: str = "gelu"
    epsilon: float = 1e-5
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    remat: str = "none"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, audio: jax.Array, *, train: bool = False) -> jax.Array:
        self._check(audio)
        x = audio
        for i, stride in enumerate((1, 2)):
            map_ = Linear(
                (self.width,), (None, None, "embed"), dtype=self.dtype, name=f"convolution{i}"
            )
            x = jax.nn.gelu(map_(windows(x, stride)), approximate=False)
        x = x + jnp.asarray(sinusoids(x.shape[1], self.width), x.dtype)[None]
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = Transformer(
            self.depth,
            self.heads,
            self.mlp_dim,
            activation=self.activation,
            dropout=self.dropout,
            stochastic_depth=self.stochastic_depth,
            remat=self.remat,
            epsilon=self.epsilon,
            dtype=self.dtype,
            key_bias=False,
            name="transformer",
        )(shard(x, "batch", "length", "act_embed"), train=train)
        return LayerNorm(self.epsilon, self.dtype, name="norm")(x)

    def _check(self, audio: jax.Array) -> None:
        frames, mels = audio.shape[1:]
        if mels != self.mels or frames > 2 * self.length:
            raise ValueError(
                f"The audio has {frames} frames of {mels} mels, and the model takes at most "
                f"{2 * self.length} of {self.mels}: change the transform that makes it, or "
                "config.model.audio."
            )


def windows(x: jax.Array, stride: int) -> jax.Array:
    """What a convolution sees at each place: [B, T, C] -> [B, (T - 1) // stride + 1, WINDOW, C].

    Padded with one frame of zeros on both sides.
    """
    last = (x.shape[1] - 1) // stride * stride + 1
    x = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
    return jnp.stack([x[:, k : k + last : stride] for k in range(WINDOW)], axis=2)


class Whisper(GeneratesText, nn.Module):
    """batch["audio"] [B, F, mels] and ["text"] [B, L] -> `text_logits` [B, L, V].

    Without text it gives `audio_tokens` [B, S, width], which a batch may have instead of `audio`.
    A missing recording (`audio_present` false) is masked. While decoding (mmjax/layers/decoder.py)
    it gives next_logits [B, V], and needs the audio only with the prompt.

    Attributes:
      audio: fields of `AudioEncoder`.
      text: fields of `TextDecoder`; every layer attends to the audio.

    Source: Radford et al. 2022 (arXiv 2212.04356), section 2.2; openai/whisper, model.py.
    """

    audio: Mapping[str, Any]
    text: Mapping[str, Any]
    dtype: str = "float32"

    def audio_encoder(self, **kwargs) -> AudioEncoder:
        """The encoder that `audio` describes."""
        fields = {"dtype": self.dtype, **self.audio}
        return AudioEncoder(**check_kwargs(AudioEncoder, fields, "config.model.audio"), **kwargs)

    def text_decoder(self, **kwargs) -> TextDecoder:
        """The decoder that `text` describes."""
        decoder = {"epsilon": 1e-5, "key_bias": False, **self.text.get("decoder", {})}
        fields = {**self.text, "decoder": decoder}
        return make_text_decoder(fields, self.dtype, cross_every=1, **kwargs)

    @nn.compact
    def __call__(
        self, batch: Batch, *, train: bool = False, cache_length: int = 0
    ) -> dict[str, jax.Array]:
        tokens = batch.get("audio_tokens")
        if "audio" in batch:
            tokens = self.audio_encoder(name="audio")(batch["audio"], train=train)
        elif tokens is None and not self.has_variable("cache", "text"):
            raise ValueError("A Whisper needs audio and the batch has none: give it a recording.")
        if "text" not in batch:
            return {"audio_tokens": tokens}
        seen = None
        if "audio_present" in batch and tokens is not None:
            seen = jnp.broadcast_to(batch["audio_present"][:, None], tokens.shape[:2])
        return decode_text(self, batch, tokens, seen, train, cache_length)


def make_model(config: Mapping[str, Any]) -> Whisper:
    """The Whisper that `config.model` describes. See `build`."""
    return build(Whisper, config, "audio_encoder", "text_decoder")


def make_system(config: Mapping[str, Any]) -> System:
    """A Whisper; its loss is that of a language model, see `mmjax.models.language`, over the tokens
    of `text_loss_mask` where a batch has it.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    hooks = language.text_hooks(model, config["loss"])
    hooks |= {name: _prompted(hooks[name]) for name in ("generate", "score")}
    return System(model=model, spec=spec(model), **hooks)


def _prompted(make: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that generates or scores texts, whose prompts are by default the tokens of a language
    and a task: of `language` and `task` in the settings of generation."""

    def hook(tokenizer: Any, given: Any) -> Callable[..., Any]:
        asked = {}
        if isinstance(given, Mapping):
            asked = {name: given[name] for name in ("language", "task") if name in given}
            given = {name: x for name, x in given.items() if name not in asked}
        function, before = make(tokenizer, given), prompt(tokenizer, **asked)

        def call(variables: Variables, batch: Batch, *seed: int) -> Any:
            batch = dict(batch)
            if "text" not in batch:
                rows = len(next(iter(batch.values())))
                batch["text"] = np.tile(np.asarray(before, np.int32), (rows, 1))
                batch["text_mask"] = np.ones(batch["text"].shape, bool)
            return function(variables, batch, *seed)

        return call

    return hook


def spec(model: Whisper) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    encoder = model.audio_encoder(parent=None)
    audio = jax.ShapeDtypeStruct((1, 2 * encoder.length, encoder.mels), jnp.float32)
    return {"audio": audio, **language.spec(model)}
