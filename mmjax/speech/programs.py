"""The compiled programs of a speech model: listen, continue, and look at the attention."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from mmjax.decode.generate import (
    Generated,
    Prepared,
    continue_prompts,
    read_prompts,
    select_rows,
)
from mmjax.decode.prompts import pad_rows
from mmjax.decode.sampling import append
from mmjax.decode.settings import Settings

FORCED = 3  # most tokens between the begin token and the transcript: language, task, no timestamps


@flax.struct.dataclass
class Heard:
    """Recordings and the tokens before their transcripts, as the model has read them.

    Attributes:
      audio_tokens: [B, S, width] of the encoder.
      logits: [B, V] after the begin token; cache, history, count: as of `read_prompts`.
      length: of the prompts, with padding.
    """

    audio_tokens: jax.Array
    logits: jax.Array
    cache: Any
    history: jax.Array
    count: jax.Array
    length: int = flax.struct.field(pytree_node=False)


class Programs:
    """What is compiled for a model that takes audio and generates text; see `models/whisper.py`.

    Attributes:
      settings: of greedy decoding or of beam search, for the tokens after the forced ones.
      best_of: samples of each recording at a temperature above 0.
    """

    def __init__(self, model: Any, variables: Any, settings: Settings, best_of: int):
        self.settings, self.best_of = settings, best_of
        self._model = model
        self._params = variables["params"]
        self._sampling = dataclasses.replace(settings, beams=1, temperature=1.0)
        encoder = model.audio_encoder(parent=None)
        self.audio_shape = (2 * encoder.length, encoder.mels)
        example = self._batch([[settings.pad_id]], 1) | {
            "audio_tokens": np.zeros((1, encoder.length, encoder.width), np.float32)
        }
        self._variables = Prepared(model, self._reading(1))(variables, example)
        self._listen = jax.jit(self._listened)
        self._reread = jax.jit(self._read)
        self._continue = jax.jit(self._continued, static_argnames="rows_each")
        self._attend = jax.jit(self._attended)

    @property
    def prompt_room(self) -> int:
        """Most tokens before the begin token: half a window, as in openai/whisper."""
        return self._model.window // 2

    def listen(self, audio: np.ndarray, prompts: Sequence[Sequence[int]]) -> Heard:
        """Read recordings, log-mel [B, F, M], and for each the tokens up to the begin token.

        There is one program for prompts of the begin token alone, and one for all others.
        """
        return self._listen(self._variables, audio, self._batch(prompts))

    def listen_again(self, heard: Heard, row: int, prompt: Sequence[int]) -> Heard:
        """One recording of those heard, with its prompt."""
        tokens = heard.audio_tokens[row : row + 1]
        return self._reread(self._variables, tokens, self._batch([prompt]))

    def continue_(
        self, heard: Heard, forced: Sequence[Sequence[int]], temperature: float, seed: int
    ) -> Generated:
        """Transcripts of recordings after the forced tokens [B, F], with tokens [B, n, N].

        At temperature 0 it is the one of greedy decoding or beam search; otherwise `best_of` are
        sampled. Scores are the log-probabilities of whole transcripts.
        """
        ids = jnp.asarray(forced, jnp.int32)
        key = jax.random.key(seed)
        given = (self._variables, heard.replace(audio_tokens=None), ids, key)
        if not temperature:
            return self._continue(*given, None, rows_each=1)
        return self._continue(*given, jnp.float32(temperature), rows_each=self.best_of)

    def attention(
        self, audio_tokens: jax.Array, tokens: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cross-attention [layers, heads, L, S] of one recording's tokens, and their logits [L, V].

        There is one program, for the longest transcript.
        """
        length = self.settings.max_new_tokens + FORCED + 2
        batch = self._batch([tokens], min(length, self._model.window))
        weights, logits = self._attend({"params": self._params}, audio_tokens, batch)
        return np.asarray(weights[:, :, : len(tokens)]), np.asarray(logits[: len(tokens)])

    def _batch(self, prompts: Sequence[Sequence[int]], length: int = 0) -> dict[str, np.ndarray]:
        longest = max(map(len, prompts))
        length = length or (1 if longest == 1 else self.prompt_room + 1)
        text, mask = pad_rows(prompts, length, self.settings.pad_id)
        return {"text": text, "text_mask": mask}

    def _reading(self, length: int) -> Settings:
        """How prompts of `length` tokens are read: the cache also holds the forced tokens."""
        new = min(self.settings.max_new_tokens + FORCED, self._model.window - length)
        return Settings(new, int8=self.settings.int8)

    def _listened(self, variables, audio, batch) -> Heard:
        tokens = self._model.apply(variables, {"audio": audio})["audio_tokens"]
        return self._read(variables, tokens, batch)

    def _read(self, variables, tokens, batch) -> Heard:
        batch = {**batch, "audio_tokens": tokens}
        length = batch["text"].shape[1]
        read = read_prompts(self._model, self._reading(length), variables, batch)
        return Heard(tokens, *read, length)

    def _continued(self, variables, heard, forced, key, temperature, rows_each) -> Generated:
        logits, cache, history, count = heard.logits, heard.cache, heard.history, heard.count
        if forced.shape[1]:
            batch = {"text": forced, "text_mask": jnp.ones(forced.shape, bool)}
            given = {**variables, "cache": cache}
            outputs, made = self._model.apply(given, batch, mutable=["cache"])
            logits, cache = outputs["next_logits"], made["cache"]
            for token in forced.T:
                history, count = append(history, count, token), count + 1
        if rows_each > 1:
            rows = jnp.repeat(jnp.arange(len(count)), rows_each)
            cache = select_rows(cache, rows)
            logits, history, count = logits[rows], history[rows], count[rows]
        settings = self.settings if temperature is None else self._sampling
        # The model does not read the last token.
        fits = self._model.window - heard.length - forced.shape[1] + 1
        new = min(settings.max_new_tokens, fits)
        settings = dataclasses.replace(settings, max_new_tokens=new)
        found = continue_prompts(
            self._model, settings, variables, logits, cache, history, count, key, temperature
        )
        if settings.beams > 1:
            penalty = found.lengths.astype(jnp.float32) ** settings.length_penalty
            found = found._replace(scores=found.scores * penalty)
            found = Generated((), *(x[:, :1] for x in found[1:]))
        split = [rearrange(x, "(b n) 1 ... -> b n ...", n=rows_each) for x in found[1:]]
        return Generated((), *split)

    def _attended(self, variables, tokens, batch):
        given = {**batch, "audio_tokens": tokens}
        outputs, made = self._model.apply(variables, given, mutable=["intermediates"])
        return cross_attention(made["intermediates"]), outputs["text_logits"][0]


def cross_attention(intermediates: Any) -> jax.Array:
    """The sown weights [layers, heads, L, S] of a decoder's cross-attention, for a batch of one."""
    found = [
        x
        for path, x in jax.tree_util.tree_leaves_with_path(intermediates)
        if any(getattr(entry, "key", None) == "cross" for entry in path)
    ]
    if len(found) != 1:
        raise AssertionError(f"{len(found)} arrays of cross-attention")
    return found[0][:, 0]
