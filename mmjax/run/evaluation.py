"""Run a model over a whole source or a list of texts; every example exactly once."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

_LABELS = ("label", "example_id")
_OUTPUTS = ("image_embed", "image_features", "logits")


Generate = Callable[[Any, Mapping[str, np.ndarray]], Sequence[str]]
Choice = Callable[[Any, Mapping[str, np.ndarray]], np.ndarray]


def _silent(what: str, done: int, total: int) -> None:
    """No progress shown."""


@dataclasses.dataclass(frozen=True)
class EvalContext:
    """All that an evaluator needs of a run, but the parameters.

    Fields:
      embed: `(params, this process's rows of a batch) -> outputs` of the model for the rows of
        all processes, as numpy arrays; in place of `text_logits` `[B, L, V]` it gives
        `token_losses` `[B, L-1]`, -log p of each token after the first, in nats.
      open_source: a source's config -> the source.
      batches: `(source, transforms, batch size) -> batches of numpy arrays`, this process's rows
        of each, in order, the last one padded by rows whose example_id is -1; example_id is the
        place in the source.
      tokenizer: has `encode(texts, length) -> (text [B, L], text_mask [B, L])`; None: no text.
      text_length: L; batch_size: examples a call of `embed`.
      window: of a model that writes, the longest prompt with its continuation; 0: it says none.
      attention: `(params, batch) -> weights [layers, B, heads, L, L]` of the image tower; it, or
        what it gives, is None where there is none.
      progress: called with what is being done, how much is done, and of how much.
      make_generate: settings of decoding -> `(params, batch) -> texts` of the model for the rows of
        all processes, one a row; raises ValueError where the system writes no text. `batch` is
        this process's rows; `text` and `text_mask`, where it has them, are prompts.
      make_choice: C texts -> `(params, batch) -> [B, C]`, log p of each after each row's prompt,
        for the rows of all processes; as `make_generate` otherwise.
      rows: which rows of a batch are this process's.
      gather: a dict of this process's rows -> those of all processes.
    """

    embed: Callable[[Any, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
    open_source: Callable[[Mapping[str, Any]], Any]
    batches: Callable[[Any, str, int], Iterator[Mapping[str, np.ndarray]]]
    tokenizer: Any = None
    text_length: int = 0
    window: int = 0
    batch_size: int = 256
    attention: Callable[[Any, Mapping[str, np.ndarray]], np.ndarray | None] | None = None
    make_generate: Callable[[Mapping[str, Any]], Generate] | None = None
    make_choice: Callable[[Sequence[str]], Choice] | None = None
    progress: Callable[[str, int, int], None] = _silent
    rows: slice = dataclasses.field(default_factory=lambda: slice(None))
    gather: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]] = dict


def select(
    batch: Mapping[str, np.ndarray],
    modalities: Sequence[str],
    absent: Sequence[str] = (),
    every: bool = False,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What the model is given of a batch, and which rows have something of it.

    Args:
      modalities: what it is given; captions would only cost a text tower.
      absent: those of them that are taken away: zeros, and marked as not present.
      every: a row needs all of them; else one will do.

    Returns:
      The batch, and `[B]` bool: what a row needs is present, or was before it was taken away.

    Raises:
      ValueError: the batch has none of them.
    """
    given = {k: v for k, v in batch.items() if k.split("_")[0] in modalities or k in _LABELS}
    everywhere = np.ones(len(batch["example_id"]), bool)
    has = [batch.get(f"{m}_present", everywhere) for m in modalities if m in batch]
    if not has:
        raise ValueError(
            f"This evaluation needs one of {', '.join(modalities)} and its transform gives "
            f"{', '.join(sorted(batch))}: change its transform or its source."
        )
    for key in given:
        if key.split("_")[0] in absent:
            given[key] = np.zeros_like(given[key])
    given |= {f"{m}_present": np.zeros_like(everywhere) for m in absent}
    return given, (np.all if every else np.any)(has, axis=0)


def in_order(
    context: EvalContext,
    source: Any,
    batches: Iterator[tuple[Mapping[str, np.ndarray], dict[str, Sequence]]],
    what: str,
) -> dict[str, np.ndarray]:
    """Rows of all batches in the order of the source, without padding.

    Args:
      batches: pairs of a batch and what was made of it: name -> a value for each row of all
        processes.

    Raises:
      ValueError: an example is missing or comes twice.
    """
    parts: dict[str, list[np.ndarray]] = {}
    done = 0
    for batch, made in batches:
        known = context.gather({k: batch[k] for k in _LABELS if k in batch})
        real = known["example_id"] >= 0
        for name, rows in {**made, **known}.items():
            parts.setdefault(name, []).append(np.asarray(rows)[real])
        done += int(real.sum())
        context.progress(what, done, len(source))
    joined = {name: np.concatenate(rows) for name, rows in parts.items()}
    ids = joined.get("example_id", np.empty(0, np.int64))
    order = np.argsort(ids, kind="stable")
    if not np.array_equal(ids[order], np.arange(len(source))):
        raise ValueError(
            f"An evaluation saw {len(ids)} examples ({len(np.unique(ids))} different) of a set of "
            f"{len(source)}: every example must be seen exactly once; look at the evaluation's "
            "transforms and at the records that were skipped."
        )
    return {name: rows[order] for name, rows in joined.items()}


def embed_images(
    context: EvalContext,
    params: Any,
    source: Any,
    spec: str,
    modalities: Sequence[str] = ("image",),
    absent: Sequence[str] = (),
    every: bool = False,
) -> dict[str, np.ndarray]:
    """The model's outputs for every example of `source`, in its order.

    Args:
      spec: the transforms, as one string.
      modalities, absent, every: see `select`.

    Returns:
      Those of `image_embed [N, D]`, `image_features [N, F]`, `logits [N, C]` that the model gives,
      `label [N]` where the source has it, `present [N]` (see `select`), and `example_id [N]` =
      0 ... N-1.

    Raises:
      ValueError: an example is missing or comes twice, or a batch has none of the modalities.
    """

    def made() -> Iterator[tuple[Mapping[str, np.ndarray], dict[str, Sequence]]]:
        for batch in context.batches(source, spec, context.batch_size):
            given, present = select(batch, modalities, absent, every)
            outputs = context.embed(params, given)
            kept = {k: outputs[k] for k in _OUTPUTS if k in outputs}
            yield batch, kept | dict(context.gather({"present": present}))

    return in_order(context, source, made(), "images")


def make_generate(context: EvalContext, decode: Mapping[str, Any]) -> Generate:
    """The model's writing with these settings of decoding.

    Raises:
      ValueError: the system writes no text, or the settings are wrong.
    """
    return _writing(context.make_generate)(decode)


def make_choice(context: EvalContext, texts: Sequence[str]) -> Choice:
    """How probable the model finds these texts.

    Raises:
      ValueError: the system writes no text.
    """
    return _writing(context.make_choice)(texts)


def _writing(make: Callable | None) -> Callable:
    if make is None:
        raise ValueError("This evaluation needs a system that writes text: remove it.")
    return make


def generate_texts(
    context: EvalContext,
    params: Any,
    source: Any,
    spec: str,
    decode: Mapping[str, Any],
    modalities: Sequence[str],
    absent: Sequence[str] = (),
) -> tuple[list[str], np.ndarray]:
    """What the model writes for every example of `source`, in its order, and `present [N]`.

    Args:
      decode: settings of decoding; modalities, absent: see `select`, an example needs every one of
        them. `text` among them is the prompt.

    Raises:
      ValueError: as `embed_images`, or the system writes no text.
    """
    generate = make_generate(context, decode)

    def write(params: Any, given: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(list(generate(params, given)), object)

    rows = _of_each(context, params, source, spec, write, modalities, absent, "texts written")
    return list(rows["made"]), rows["present"]


def score_texts(
    context: EvalContext,
    params: Any,
    source: Any,
    spec: str,
    texts: Sequence[str],
    modalities: Sequence[str],
) -> dict[str, np.ndarray]:
    """How probable the model finds C texts after every example of `source`, in its order.

    Returns:
      `scores [N, C]`, log p; `present [N]` and the source's labels as of `embed_images`.

    Raises:
      ValueError: as `generate_texts`.
    """
    choice = make_choice(context, texts)
    rows = _of_each(context, params, source, spec, choice, modalities, (), "texts ranked")
    return {"scores": rows.pop("made"), **rows}


def _of_each(
    context: EvalContext,
    params: Any,
    source: Any,
    spec: str,
    function: Callable[[Any, Mapping[str, np.ndarray]], np.ndarray],
    modalities: Sequence[str],
    absent: Sequence[str],
    what: str,
) -> dict[str, np.ndarray]:
    """What a function makes of every example, `made [N, ...]`, and `present [N]`; see `select`."""

    def made() -> Iterator[tuple[Mapping[str, np.ndarray], dict[str, Sequence]]]:
        for batch in context.batches(source, spec, context.batch_size):
            given, present = select(batch, modalities, absent, every=True)
            found = function(params, given)
            yield batch, {"made": found, **context.gather({"present": present})}

    return in_order(context, source, made(), what)


def embed_texts(context: EvalContext, params: Any, texts: Sequence[str]) -> np.ndarray:
    """Unit embeddings `[M, D]` of texts.

    Raises:
      ValueError: the run has no tokenizer, or there is no text.
    """
    if context.tokenizer is None:
        raise ValueError("This evaluation embeds text and the run has no tokenizer: remove it.")
    if not texts:
        raise ValueError("This evaluation embeds text and its source has no captions.")
    size, parts = context.batch_size, []
    for start in range(0, len(texts), size):
        chunk = list(texts[start : start + size])
        # Padding repeats a text, so that every call has one shape and compiles once.
        padded = chunk + [chunk[-1]] * (size - len(chunk))
        text, mask = context.tokenizer.encode(padded[context.rows], context.text_length)
        outputs = context.embed(
            params, {"text": np.asarray(text, np.int32), "text_mask": np.asarray(mask, bool)}
        )
        parts.append(np.asarray(outputs["text_embed"])[: len(chunk)])
        context.progress("texts", start + len(chunk), len(texts))
    return np.concatenate(parts)
