"""The text of a loaded model, in pieces as its tokens are generated."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from mmjax import pretrained
from mmjax.decode.generate import make_generate, make_stream
from mmjax.decode.prompts import Detokenizer
from mmjax.decode.settings import Settings
from mmjax.models.systems import make_system
from mmjax.pretrained import Pretrained

QUANTIZED = ("language_model", "llava")  # while they are read; others afterwards


def open_model(path: str, int8: bool = False) -> Pretrained:
    """Load a generative model; see `mmjax.load`.

    Args:
      int8: with kernels in int8, in the memory that these need, where `mmjax.load` can do so.

    Raises:
      ValueError: no model there, one that does not generate text, or one without a tokenizer.
    """
    int8 = int8 and pretrained.describe(path).config["name"] in QUANTIZED
    loaded = pretrained.load(path, int8=int8)
    name = loaded.config["name"]
    if make_system({"model": loaded.config}).generate is None:
        raise ValueError(f"'{path}' holds a '{name}', which does not generate text.")
    loaded.need_tokenizer()
    return loaded


def make_text_stream(loaded: Pretrained, settings: Settings) -> Callable[..., Iterator[str]]:
    """A function (batch, seed=0) -> the continuation's text, in pieces as it is generated.

    With beam search the whole text is one piece.

    Raises:
      ValueError: when called, a prompt that is empty or leaves no room in the model's window.
    """
    if settings.beams > 1:
        generate = make_generate(loaded.model, settings)

        def stream(*given):
            return np.asarray(generate(*given).tokens)[:, 0].T  # the best beam's
    else:
        stream = make_stream(loaded.model, settings)

    def stream_text(batch: Mapping[str, np.ndarray], seed: int = 0) -> Iterator[str]:
        text = Detokenizer(loaded.tokenizer.decode_raw)
        for token in stream(loaded.variables, batch, seed):
            if token[0] in settings.end_ids:
                break
            yield text.push(token[0])
        yield text.flush()

    return stream_text


def settings_for(
    loaded: Pretrained, batch: Mapping, max_new_tokens: int | None, **decode
) -> Settings:
    """Settings for a batch, by default of as many tokens as fit, at most 64."""
    room = loaded.model.window - int(batch["text_mask"].sum())
    place = loaded.config.get("image_token")
    return Settings(
        max(1, min(64, room)) if max_new_tokens is None else max_new_tokens,
        end_ids=loaded.tokenizer.end_ids,
        pad_id=loaded.tokenizer.pad_id,
        forbidden_ids=() if place is None else (place,),
        **decode,
    )
