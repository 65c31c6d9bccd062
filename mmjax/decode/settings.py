"""Decoding settings and their checks."""

import dataclasses
from collections.abc import Callable

import jax

from mmjax.decode import logits as processors
from mmjax.number import check_finite

Processor = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to continue prompts; the default is greedy decoding.

    Attributes:
      max_new_tokens: maximum length of a continuation, including its end token.
      min_new_tokens: minimum number of tokens before an end token.
      end_ids: tokens that end a continuation; pad_id: padding after the end in the result.
      forbidden_ids: tokens that are never chosen.
      temperature: 0 takes the most probable token; otherwise tokens are sampled from
        softmax(logits / temperature).
      top_k: sample from the k most probable tokens only (0: all); top_p: then from the nucleus.
      beams: number of beams; 1: no beam search.
      beam_groups, diversity_penalty: diverse beam search.
      length_penalty: a finished beam's score is its log-probability / length ** length_penalty.
      repetition_penalty: 1: none; no_repeat_ngram: n, 0: none. Both include the prompt.
      processors: further functions (logits [R, V], history [R, T], count [R], new scalar) -> logits
        [R, V], applied in order after the settings above: constraints, timestamp rules; see
        decode/logits.py. `new` is the number of tokens of the continuation so far.
      int8: kernels in int8 with one scale per output: a quarter of the bytes, nearly the same
        logits (see layers/packed.py).

    Raises:
      ValueError: a value out of its range, or settings that cannot be combined.
    """

    max_new_tokens: int
    min_new_tokens: int = 0
    end_ids: tuple[int, ...] = ()
    pad_id: int = 0
    forbidden_ids: tuple[int, ...] = ()
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    beams: int = 1
    beam_groups: int = 1
    diversity_penalty: float = 0.0
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0
    processors: tuple[Processor, ...] = ()
    int8: bool = False

    def __post_init__(self):
        def need(ok, name, must):
            if not ok:
                raise ValueError(f"decode.{name} is {getattr(self, name)}: it must be {must}.")

        check_finite(vars(self), "decode")
        for name in ("end_ids", "forbidden_ids"):
            need(isinstance(getattr(self, name), tuple), name, "a tuple of token ids")
            # Beam search would return a text once per copy of an end token.
            unique = tuple(dict.fromkeys(getattr(self, name)))
            object.__setattr__(self, name, unique)
        wrong = [p for p in self.processors if not callable(p)]
        if wrong:
            raise ValueError(
                f"decode.processors has {wrong[0]!r}: each is a function (logits, history, count, "
                "new) -> logits."
            )
        need(self.max_new_tokens >= 1, "max_new_tokens", "at least 1")
        need(
            0 <= self.min_new_tokens <= self.max_new_tokens,
            "min_new_tokens",
            f"from 0 to max_new_tokens, {self.max_new_tokens}",
        )
        need(self.temperature >= 0, "temperature", "0 (greedy) or above")
        need(self.top_k >= 0, "top_k", "0 (all tokens) or above")
        need(0 < self.top_p <= 1, "top_p", "above 0 and at most 1")
        need(self.beams >= 1, "beams", "at least 1")
        need(
            self.beam_groups >= 1 and self.beams % self.beam_groups == 0,
            "beam_groups",
            f"a divisor of beams, {self.beams}",
        )
        need(self.diversity_penalty >= 0, "diversity_penalty", "0 or above")
        if self.diversity_penalty and self.beam_groups == 1:
            raise ValueError(
                f"decode.diversity_penalty is {self.diversity_penalty} and there is one group of "
                "beams: set beam_groups, or the penalty to 0."
            )
        need(self.length_penalty >= 0, "length_penalty", "0 or above")
        need(self.repetition_penalty > 0, "repetition_penalty", "above 0 (1: none)")
        need(self.no_repeat_ngram >= 0, "no_repeat_ngram", "0 (none) or above")
        if self.beams > 1 and self.temperature:
            raise ValueError(
                f"decode.beams is {self.beams} and decode.temperature {self.temperature}: beam "
                "search does not sample; set one of the two to its default."
            )
        if not self.temperature and (self.top_k or self.top_p < 1):
            raise ValueError(
                "decode.top_k and decode.top_p are for sampling: give a temperature too."
            )

    def check_vocabulary(self, size: int) -> None:
        """Raise ValueError where beams, top_k or end tokens do not fit a vocabulary of `size`."""
        for name in ("beams", "top_k"):
            if getattr(self, name) > size:
                raise ValueError(
                    f"decode.{name} is {getattr(self, name)} and the vocabulary has {size} tokens: "
                    f"use at most {size}."
                )
        for token in (*self.end_ids, *self.forbidden_ids, self.pad_id):
            if not 0 <= token < size:
                raise ValueError(
                    f"The end, forbidden or padding token {token} is not in the vocabulary of "
                    f"{size} tokens."
                )

    def process(
        self, logits: jax.Array, history: jax.Array, count: jax.Array, new: jax.Array
    ) -> jax.Array:
        """The processed logits [R, V] of the token after `new` (scalar) continuation tokens."""
        if self.repetition_penalty != 1:
            logits = processors.repetition_penalty(logits, history, count, self.repetition_penalty)
        if self.no_repeat_ngram:
            logits = processors.no_repeat_ngram(logits, history, count, self.no_repeat_ngram)
        if self.min_new_tokens:
            short = new < self.min_new_tokens
            logits = processors.forbid_ids(logits, self.end_ids, short)
        logits = processors.forbid_ids(logits, self.forbidden_ids, True)
        for processor in self.processors:
            logits = processor(logits, history, count, new)
        return logits
