"""Run a model over a whole source or a list of texts; every example exactly once."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

_LABELS = ("label", "example_id")
_OUTPUTS = ("image_embed", "image_features", "logits")


def _silent(what: str, done: int, total: int) -> None:
    """No progress shown."""


@dataclasses.dataclass(frozen=True)
class EvalContext:
    """All that an evaluator needs of a run, but the parameters.

    Fields:
      embed: `(params, this process's rows of a batch) -> outputs` of the model for the rows of
        all processes, as numpy arrays.
      open_source: a source's config -> the source.
      batches: `(source, transforms, batch size) -> batches of numpy arrays`, this process's rows
        of each, in order, the last one padded by rows whose example_id is -1; example_id is the
        place in the source.
      tokenizer: has `encode(texts, length) -> (text [B, L], text_mask [B, L])`; None: no text.
      text_length: L; batch_size: examples a call of `embed`.
      attention: `(params, batch) -> weights [layers, B, heads, L, L]` of the image tower; it, or
        what it gives, is None where there is none.
      progress: called with what is being done, how much is done, and of how much.
      rows: which rows of a batch are this process's.
      gather: a dict of this process's rows -> those of all processes.
    """

    embed: Callable[[Any, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
    open_source: Callable[[Mapping[str, Any]], Any]
    batches: Callable[[Any, str, int], Iterator[Mapping[str, np.ndarray]]]
    tokenizer: Any = None
    text_length: int = 0
    batch_size: int = 256
    attention: Callable[[Any, Mapping[str, np.ndarray]], np.ndarray | None] | None = None
    progress: Callable[[str, int, int], None] = _silent
    rows: slice = dataclasses.field(default_factory=lambda: slice(None))
    gather: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]] = dict


def embed_images(
    context: EvalContext,
    params: Any,
    source: Any,
    spec: str,
    modalities: Sequence[str] = ("image",),
    absent: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """The model's outputs for every example of `source`, in its order.

    Args:
      spec: the transforms, as one string.
      modalities: what the model is given of a batch; captions would only cost a text tower.
      absent: those of them that are marked as not present, whatever the batch holds.

    Returns:
      Those of `image_embed [N, D]`, `image_features [N, F]`, `logits [N, C]` that the model gives,
      `label [N]` where the source has it, and `example_id [N]` = 0 ... N-1.

    Raises:
      ValueError: an example is missing or comes twice.
    """
    parts: dict[str, list[np.ndarray]] = {}
    done = 0
    for batch in context.batches(source, spec, context.batch_size):
        given = {k: v for k, v in batch.items() if k.split("_")[0] in modalities or k in _LABELS}
        off = {f"{m}_present": np.zeros(len(given["example_id"]), bool) for m in absent}
        batch = given | off
        outputs = context.embed(params, batch)
        known = context.gather({k: batch[k] for k in ("label", "example_id") if k in batch})
        real = known["example_id"] >= 0
        kept = {k: np.asarray(outputs[k])[real] for k in _OUTPUTS if k in outputs}
        kept |= {k: np.asarray(v)[real] for k, v in known.items()}
        for name, rows in kept.items():
            parts.setdefault(name, []).append(rows)
        done += int(real.sum())
        context.progress("images", done, len(source))
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
