"""From a source to batches on the host: order and augmentation come from (seed, step) alone.

Training reads an endless sequence of rows. Of a plain source each epoch is a fresh permutation, and
batch `step` holds rows `step * B` to `(step + 1) * B - 1`; of a mixture `order.py` says which part
and which example each row is. Process `p` of `P` has the `p`-th of `P` equal runs of a batch's
rows; so neither the process count, nor a restart, nor the number of threads changes what is trained
on.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from mmjax.batch import MODALITIES, Spec
from mmjax.data.draws import BATCH_AUGMENT, EVAL, row_rng
from mmjax.data.lost import LostRecords
from mmjax.data.missing import SAMPLES, make_fill
from mmjax.data.mixture import Mixture, Part, Transform, order_of
from mmjax.data.order import PLAIN
from mmjax.data.source import Source

Batch = dict[str, np.ndarray]

CHUNK = 32  # rows that a thread makes in one go, at most


def train_batches(
    source: Source,
    transform: Transform | Mapping[str, Transform],
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 2,
    batch_transform: Transform | None = None,
    max_lost_records: int | float = 0,
    spec: Spec | None = None,
) -> Iterator[Batch]:
    """This process's rows of each training batch, without end, from `start_step` on.

    Args:
      source: a plain one or a `Mixture`, which knows its weights.
      transform: (example, rng) -> example whose arrays and numbers become the batch; of a mixture
        one for each part, by its name.
      batch_size: rows of the global batch; each process yields `batch_size / process_count`.
      seed: 0 to 2**32 - 1.
      num_threads: threads that decode and transform.
      batch_transform: (batch, rng) -> batch, on this process's rows (Mixup); `rng` is the same in
        all processes.
      max_lost_records: how many of each part may become unreadable while we iterate (a count, or a
        share as a float); the part's next readable record takes the place of each.
      spec: what the system reads: name -> shape with a leading 1, and dtype. With it, and of a
        mixture always, every batch has the same keys; see `missing.py`.

    Yields batches with `example_id` (int64 index in the source) and `<modality>_present`, and of a
    mixture `part` (int32, the number of the row's part).

    Raises:
      ValueError: an empty source, a batch that the processes do not divide, parts that do not fit
        each other, or, while iterating, an example that cannot be read or transformed, by its key.
    """
    local = _local_size(batch_size, process_index, process_count)
    if len(source) == 0:
        raise ValueError(f"Source {source.name} is empty: there is nothing to train on.")
    if not 0 <= seed < 2**32:
        raise ValueError(f"The data seed is {seed}; it must lie between 0 and 2**32 - 1.")
    mixed = isinstance(source, Mixture)
    parts = source.parts if mixed else (Part(PLAIN, source),)
    transforms = [transform[part.name] for part in parts] if mixed else [transform]
    lost = [LostRecords(p.source.name, len(p.source), max_lost_records) for p in parts]
    firsts = np.cumsum([0, *(len(part.source) for part in parts)])
    order = order_of(source, batch_size, seed)
    fill = _identity
    if mixed or spec is not None:
        # What comes out of a batch transform is not what it needs.
        reads = {} if spec is None or batch_transform is not None else spec
        reads = {key: x for key, x in reads.items() if key not in ("part", "example_id")}
        fill = make_fill(_samples(parts, transforms, reads), reads, batch_transform is not None)

    def load(i: int) -> dict[str, Any]:
        step, offset = divmod(i, local)
        place = process_index * local + offset
        numbers, positions = order.positions(step)
        number = int(numbers[place])
        index, one = order.index(number, positions[place]), parts[number].source
        rng = row_rng(seed, step * batch_size + place)
        while True:  # `lost` raises before it has been once around
            try:
                row = fill(_load(one, transforms[number], index, rng))
                break
            except OSError as error:
                lost[number].add(index, error)
                index = (index + 1) % len(one)
        if mixed:
            row |= {"part": np.int32(number), "example_id": np.int64(firsts[number] + index)}
        return row

    batches = _batches(load, start_step * local, sys.maxsize, local, num_threads)

    def finished() -> Iterator[Batch]:
        step = start_step
        for batch in batches:
            if batch_transform is not None:
                rng = row_rng(seed, step, BATCH_AUGMENT)
                batch = _arrays(batch_transform(batch, rng))
            yield batch
            step += 1

    return finished()


def _identity(row: dict[str, Any]) -> dict[str, Any]:
    return row


def _samples(
    parts: Sequence[Part], transforms: Sequence[Transform], spec: Spec
) -> dict[str, dict[str, Any]]:
    """Arrays that each part gives: of its first example, and of more while some are not found."""
    found: dict[str, dict[str, Any]] = {part.name: {} for part in parts}
    wanted = {key for key in spec if not key.endswith("_present")}
    for n in range(SAMPLES):
        for part, transform in zip(parts, transforms, strict=True):
            size = len(part.source)
            if n >= min(size, SAMPLES):
                continue
            index = n * size // min(size, SAMPLES)
            try:
                row = _load(part.source, transform, index, row_rng(0, index, EVAL))
            except OSError:  # the run says so, if it is drawn
                continue
            row.pop("example_id")
            found[part.name] = row | found[part.name]
        if all(found.values()) and wanted <= set().union(*found.values()):
            break
    return found


def eval_batches(
    source: Source,
    transform: Transform,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 2,
) -> Iterator[Batch]:
    """This process's rows of each batch of one pass over `source`, in its order.

    Every process yields the same number of batches of the same shape. The last batch is filled
    up with copies of the last example whose `example_id` is -1 and whose `<modality>_present`
    are False. A random transform gets the same numbers on each pass.

    Raises:
      ValueError: as `train_batches`.
    """
    local = _local_size(batch_size, process_index, process_count)
    if len(source) == 0:
        raise ValueError(f"Source {source.name} is empty: there is nothing to evaluate on.")

    def load(i: int) -> dict[str, Any]:
        step, offset = divmod(i, local)
        row = step * batch_size + process_index * local + offset
        index = min(row, len(source) - 1)
        try:
            example = _load(source, transform, index, row_rng(0, index, EVAL))
        except OSError as error:
            raise ValueError(
                f"Example number {index} of {source.name} is gone ({error}): an evaluation needs "
                "every example; bring the file back."
            ) from error
        if row >= len(source):
            example["example_id"] = np.int64(-1)
            for key in [k for k in example if k.endswith("_present")]:
                example[key] = np.bool_(False)
        return example

    steps = -(-len(source) // batch_size)
    return iter(_batches(load, 0, steps * local, local, num_threads))


def _local_size(batch_size: int, process_index: int, process_count: int) -> int:
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"The batch size is {batch_size}; it must be a positive multiple of the number of "
            f"processes, {process_count}."
        )
    if not 0 <= process_index < process_count:
        raise ValueError(f"There is no process {process_index} among {process_count}.")
    return batch_size // process_count


def _load(
    source: Source, transform: Transform, index: int, rng: np.random.Generator
) -> dict[str, Any]:
    """One row: the transformed example's arrays, its id, and which modalities it has.

    Raises:
      OSError: its file is gone; ValueError: it cannot be used, by its key.
    """
    key = f"number {index}"
    try:
        example = source[index]
    except OSError:  # a file that has vanished: the caller decides
        raise
    except Exception as error:
        raise ValueError(f"Example {key} of {source.name} cannot be read: {error}") from error
    try:
        key = f"'{example.get('key', index)}'"
        example = _arrays(transform(example, rng))
    except Exception as error:
        raise ValueError(f"Example {key} of {source.name} cannot be used: {error}") from error
    for modality in MODALITIES:
        if modality in example:
            example.setdefault(f"{modality}_present", np.bool_(True))
    example["example_id"] = np.int64(index)
    return example


def _arrays(example: dict[str, Any]) -> dict[str, Any]:
    """Arrays and numbers alone, in the batch's dtypes: text and bytes stay on the host."""
    kept = {}
    for key, value in example.items():
        if isinstance(value, (np.ndarray, np.generic, bool, int, float)):
            array = np.asarray(value)
            if array.dtype == np.int64 and key != "example_id":
                array = array.astype(np.int32)
            elif array.dtype == np.float64:
                array = array.astype(np.float32)
            if array.dtype.kind in "biuf":
                kept[key] = array
    return kept


def _batches(
    load: Callable[[int], dict], start: int, stop: int, size: int, num_threads: int
) -> grain.IterDataset:
    # Rows travel from thread to thread in chunks: each hand-over waits for a core, and on a
    # machine that also trains, a hand-over for each row cost more than the row.
    chunk = max(n for n in range(1, min(size, CHUNK) + 1) if size % n == 0)

    def load_chunk(i: int) -> list[dict]:
        return [load(i * chunk + j) for j in range(chunk)]

    chunks = grain.MapDataset.range(start // chunk, stop // chunk).map(load_chunk)
    # Two batches ahead keep the threads busy across a batch's end; more only holds memory.
    in_batch = size // chunk
    ahead = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * in_batch)
    return chunks.to_iter_dataset(ahead).batch(in_batch, batch_fn=_stack_chunks)


def _stack_chunks(chunks: Sequence[list[dict[str, Any]]]) -> Batch:
    return stack([example for chunk in chunks for example in chunk])


def stack(examples: Sequence[dict[str, Any]]) -> Batch:
    """Rows to one batch; a row without a modality that others have gets zeros, and present False.

    Raises:
      ValueError: rows whose arrays differ in shape or dtype, or lack a key of no modality.
    """
    templates = {key: value for example in examples for key, value in example.items()}
    batch = {}
    for key, template in templates.items():
        absent = np.zeros_like(template) if key.split("_")[0] in MODALITIES else None
        rows = [example.get(key, absent) for example in examples]
        shapes = {(np.shape(row), np.asarray(row).dtype) for row in rows if row is not None}
        if len(shapes) > 1 or any(row is None for row in rows):
            found = ", ".join(sorted(f"{dtype} {shape}" for shape, dtype in shapes))
            lacking = "" if all(row is not None for row in rows) else "; some examples lack it"
            raise ValueError(
                f"The examples of a batch differ in '{key}': {found}{lacking}. "
                "End the transforms with steps that give every example the same shape."
            )
        batch[key] = np.stack(rows)
    return batch
