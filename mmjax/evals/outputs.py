"""Outputs of a model for a whole source or a list of texts; every example exactly once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.batch import modality_of
from mmjax.run.evaluation import Runner
from mmjax.system import Variables

_LABELS = ("label", "label_probs", "example_id")


def select(
    batch: Mapping[str, np.ndarray],
    modalities: Sequence[str],
    absent: Sequence[str] = (),
    every: bool = False,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The model's inputs from a batch, and which rows have the required modalities.

    Args:
      modalities: the inputs to keep; unneeded captions would cost a run of the text tower.
      absent: modalities to remove: set to zero and marked as not present.
      every: a row needs all modalities; otherwise one is enough.

    Returns:
      The batch, and `[B]` bool: the required modalities are present (before removing `absent`).

    Raises:
      ValueError: the batch has none of the modalities.
    """
    given = {k: v for k, v in batch.items() if modality_of(k) in modalities or k in _LABELS}
    everywhere = np.ones(len(batch["example_id"]), bool)
    found = {modality_of(k) for k in batch}
    has = [batch.get(f"{m}_present", everywhere) for m in modalities if m in found]
    if not has:
        raise ValueError(
            f"This evaluation needs one of {', '.join(modalities)} and its transform gives "
            f"{', '.join(sorted(batch))}: change its transform or its source."
        )
    for key in given:
        if modality_of(key) in absent:
            given[key] = np.zeros_like(given[key])
    given |= {f"{m}_present": np.zeros_like(everywhere) for m in absent}
    return given, (np.all if every else np.any)(has, axis=0)


def in_order(
    runner: Runner,
    source: Any,
    batches: Iterator[tuple[Mapping[str, np.ndarray], dict[str, Sequence]]],
    what: str,
) -> dict[str, np.ndarray]:
    """Rows of all batches in the order of the source, without padding.

    Args:
      batches: pairs of a batch and its results: name -> one value per row of all processes.

    Raises:
      ValueError: a missing or duplicate example.
    """
    parts: dict[str, list[np.ndarray]] = {}
    done = 0
    for batch, made in batches:
        known = runner.gather({k: batch[k] for k in _LABELS if k in batch and k not in made})
        rows_of = {**made, **known}
        real = rows_of["example_id"] != -1
        for name, rows in rows_of.items():
            parts.setdefault(name, []).append(np.asarray(rows)[real])
        done += int(real.sum())
        runner.progress(what, done, len(source))
    joined = {name: np.concatenate(rows) for name, rows in parts.items()}
    ids = joined.get("example_id", np.empty(0, np.int64))
    order = np.argsort(ids, kind="stable")
    if not np.array_equal(ids[order], np.arange(len(source))):
        raise ValueError(
            f"An evaluation read {len(ids)} examples ({len(np.unique(ids))} different) of a source "
            f"of {len(source)}: every example must be read exactly once; check the evaluation's "
            "transforms and the records that were skipped."
        )
    return {name: rows[order] for name, rows in joined.items()}


def embed_images(
    runner: Runner,
    variables: Variables,
    source: Any,
    spec: str,
    names: Sequence[str],
    modalities: Sequence[str] = ("image",),
    absent: Sequence[str] = (),
    every: bool = False,
    reduce: Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]] = dict,
) -> dict[str, np.ndarray]:
    """Outputs of the model for every example of `source`, in its order.

    Args:
      spec: the transforms, as one string.
      names: of the outputs, such as `image_embed` [N, D], `image_features` [N, F], `logits` [N, C].
      modalities, absent, every: see `select`.
      reduce: of each batch's outputs and labels, what is kept.

    Returns:
      The outputs that the model has, reduced; `label [N]` or `label_probs [N, C]` if the batches
      have it, `present [N]` (see `select`), and `example_id [N]` = 0 ... N-1.

    Raises:
      ValueError: a missing or duplicate example, or a batch that has none of the modalities.
    """

    def made() -> Iterator[tuple[Mapping[str, np.ndarray], dict[str, Sequence]]]:
        for batch in runner.batches(source, spec, runner.batch_size):
            given, present = select(batch, modalities, absent, every)
            outputs = runner.apply(variables, given, names)
            labels = {key: batch[key] for key in _LABELS if key in batch}
            known = runner.gather({"present": present, **labels})
            yield batch, {**reduce({**outputs, **known}), **known}

    return in_order(runner, source, made(), "images")


def generate_texts(
    runner: Runner,
    variables: Variables,
    source: Any,
    batches: Iterator[Mapping[str, np.ndarray]],
    decode: Mapping[str, Any],
    modalities: Sequence[str],
    absent: Sequence[str] = (),
    seed: int = 0,
) -> tuple[list[str], np.ndarray]:
    """The generated text of every example of `source`, in its order, and `present [N]`.

    Args:
      batches: of the source, as from `runner.batches`.
      decode: settings of decoding.
      modalities, absent: see `select`; an example needs all modalities. `text` is the prompt.

    Raises:
      ValueError: as `embed_images`, or the system generates no text.
    """
    generate = runner.generate(decode, seed)

    def texts(variables: Variables, given: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(list(generate(variables, given).texts), object)

    rows = _of_each(runner, variables, source, batches, texts, modalities, absent, "texts")
    return list(rows["made"]), rows["present"]


def score_texts(
    runner: Runner,
    variables: Variables,
    source: Any,
    batches: Iterator[Mapping[str, np.ndarray]],
    texts: Sequence[str],
    modalities: Sequence[str],
    absent: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Log-probabilities of C texts after every example of `source`, in its order.

    Returns:
      `scores [N, C]`; `present [N]` and the source's labels as in `embed_images`.

    Raises:
      ValueError: as `generate_texts`.
    """
    score = runner.score(texts)
    rows = _of_each(runner, variables, source, batches, score, modalities, absent, "texts ranked")
    return {"scores": rows.pop("made"), **rows}


def _of_each(
    runner: Runner,
    variables: Variables,
    source: Any,
    batches: Iterator[Mapping[str, np.ndarray]],
    function: Callable[[Variables, Mapping[str, np.ndarray]], np.ndarray],
    modalities: Sequence[str],
    absent: Sequence[str],
    what: str,
) -> dict[str, np.ndarray]:
    """A function's results for every example, `made [N, ...]`, and `present [N]`; see `select`."""

    def made() -> Iterator[tuple[Mapping[str, np.ndarray], dict[str, Sequence]]]:
        for batch in batches:
            given, present = select(batch, modalities, absent, every=True)
            found = function(variables, given)
            yield batch, {"made": found, **runner.gather({"present": present})}

    return in_order(runner, source, made(), what)


def embed_texts(runner: Runner, variables: Variables, texts: Sequence[str]) -> np.ndarray:
    """Unit embeddings `[M, D]` of texts.

    Raises:
      ValueError: the run has no tokenizer, or there is no text.
    """
    if runner.tokenizer is None:
        raise ValueError("This evaluation embeds text and the run has no tokenizer: remove it.")
    if not texts:
        raise ValueError("This evaluation embeds text and its source has no captions.")
    size, embed = runner.batch_size, None
    for start in range(0, len(texts), size):
        chunk = list(texts[start : start + size])
        outputs = text_outputs(runner, variables, chunk, ["text_embed"])
        if "text_embed" not in outputs:
            raise ValueError(
                "This evaluation embeds text and the model gives no text_embed: remove it."
            )
        rows = np.asarray(outputs["text_embed"])[: len(chunk)]
        if embed is None:  # whole, as parts would be in memory twice when they are joined
            embed = np.empty((len(texts), rows.shape[1]), rows.dtype)
        embed[start : start + len(chunk)] = rows
        runner.progress("texts", start + len(chunk), len(texts))
    return embed


def text_outputs(
    runner: Runner, variables: Variables, texts: Sequence[str], names: Sequence[str]
) -> Mapping[str, np.ndarray]:
    """Those of the named outputs that the model has, for at most a batch of texts; rows after
    these are padding."""
    # Padded to a constant batch shape, so that the model compiles once.
    padded = [*texts, *[texts[-1]] * (runner.batch_size - len(texts))]
    text, mask = runner.tokenizer.encode(padded[runner.rows], runner.text_length)
    batch = {"text": np.asarray(text, np.int32), "text_mask": np.asarray(mask, bool)}
    return runner.apply(variables, batch, names)


def match(
    runner: Runner,
    variables: Variables,
    image_tokens: np.ndarray,
    texts: Sequence[str],
    image: np.ndarray,
    text: np.ndarray,
) -> np.ndarray:
    """The logit of a match of P pairs of an image and a text, [P] float64.

    Args:
      image_tokens: [N, S, C] of the images; texts: M texts.
      image, text: [P], indices of the images and texts of the pairs.
    """
    size, parts = runner.batch_size, []
    tokens, mask = runner.tokenizer.encode(list(texts), runner.text_length)
    tokens, mask = np.asarray(tokens, np.int32), np.asarray(mask, bool)
    for start in range(0, len(image), size):
        # Padded to a constant batch shape, so that the model compiles once.
        rows = np.minimum(np.arange(start, start + size), len(image) - 1)[runner.rows]
        batch = {"text": tokens[text[rows]], "text_mask": mask[text[rows]]}
        batch["image_tokens"] = image_tokens[image[rows]]
        logits = runner.apply(variables, batch, ["match_logits"])["match_logits"]
        parts.append(np.asarray(logits, np.float64)[: len(image) - start, 1])
        runner.progress("pairs matched", min(start + size, len(image)), len(image))
    return np.concatenate(parts)
