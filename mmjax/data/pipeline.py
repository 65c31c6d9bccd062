"""From a source to batches on the host: order and augmentation depend only on (seed, step).

Training reads an endless sequence of rows. A plain source is permuted anew each epoch, and batch
`step` holds rows `step * B` to `(step + 1) * B - 1`; for a mixture `order.py` chooses the part and
example of each row. Process `p` of `P` gets the `p`-th of `P` equal contiguous slices of a batch,
so the training data depend neither on the number of processes or threads nor on restarts.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from mmjax.batch import MODALITIES, Spec
from mmjax.data import workers
from mmjax.data.draws import BATCH_AUGMENT, EVAL, row_rng
from mmjax.data.lost import LostRecords
from mmjax.data.missing import SAMPLES, make_fill
from mmjax.data.mixture import Mixture, Part, Transform, order_of
from mmjax.data.order import PLAIN
from mmjax.data.source import Source
from mmjax.data.sources import memory

Batch = dict[str, np.ndarray]

AHEAD = 2  # batches: they keep the threads busy across a batch's end; more only takes memory
CHUNK = 32  # maximum number of rows that a thread makes at a time
_HALF = {np.dtype(np.int64): np.int32, np.dtype(np.float64): np.float32}


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
    num_workers: int = 0,
    batch_transform: Transform | None = None,
    max_lost_records: int | float = 0,
    spec: Spec | None = None,
) -> Iterator[Batch]:
    """This process's rows of each training batch, endlessly, from `start_step` on.

    Args:
      source: a plain source or a `Mixture`.
      transform: (example, rng) -> example whose arrays and numbers become the batch; for a mixture
        {part: transform}.
      batch_size: rows of the global batch; each process yields `batch_size / process_count`. A
        mixture of whole batches may have parts with fewer.
      seed: 0 to 2**32 - 1.
      num_threads: threads that decode and transform.
      num_workers: processes that do so instead, one row at a time each; 0: none. For transforms
        that hold the interpreter lock, which threads share. Each has its own cache and its own
        count of lost records.
      batch_transform: (batch, rng) -> batch, on this process's rows (Mixup); `rng` is the same in
        all processes.
      max_lost_records: how many records of each part may become unreadable during iteration (a
        count, or a fraction as a float); each is replaced by the part's next readable record, as is
        one whose image or video cannot be decoded (`Source.is_bad`). Which that is depends on the
        data alone, so that a resumed run and any number of processes have the same rows.
      spec: what the system reads: name -> shape with a leading 1, and dtype. If given, and always
        for a mixture, every batch has the same keys; see `missing.py`.

    Yields batches with `example_id` (int64 index in the source) and `<modality>_present`, and for a
    mixture `part` (int32, the number of the row's part).

    Raises:
      ValueError: an empty source, a batch size that the process count does not divide, parts with
        incompatible arrays, or, while iterating, an example that cannot be read or transformed
        (names its key).
    """
    local = _local_size(batch_size, process_index, process_count)
    if source.ready == 0:
        raise ValueError(f"Source {source.name} is empty: there is nothing to train on.")
    if not 0 <= seed < 2**32:
        raise ValueError(f"The data seed is {seed}; it must be between 0 and 2**32 - 1.")
    mixed = isinstance(source, Mixture)
    parts = source.parts if mixed else (Part(PLAIN, source),)
    transforms = [transform[part.name] for part in parts] if mixed else [transform]
    lost = [LostRecords(p.source.name, p.source.ready, max_lost_records) for p in parts]
    firsts = np.cumsum([0, *(len(part.source) for part in parts)]) if mixed else ()
    order = order_of(source, batch_size, seed)
    fills = [_identity] * len(parts)
    if mixed or spec is not None:
        # The spec describes the batch transform's output, not its input.
        reads = {} if spec is None or batch_transform is not None else spec
        reads = {key: x for key, x in reads.items() if key not in ("part", "example_id")}
        found = _samples(parts, transforms, reads)
        alike = [found] * len(parts)  # which parts have the same arrays
        if mixed and source.whole_batches:
            alike = [{part.name: found[part.name]} for part in parts]
        needed = batch_transform is not None
        fills = [make_fill(samples, reads, needed) for samples in alike]

    def mine(step: int) -> slice:
        """This process's rows of a step."""
        rows = _local_size(order.size(step), process_index, process_count)
        return slice(process_index * rows, (process_index + 1) * rows)

    def load(step: int, place: int) -> dict[str, Any]:
        numbers, positions = order.positions(step)
        number = int(numbers[place])
        index, one = order.index(number, positions[place]), parts[number].source
        for _ in range(one.ready):
            rng = row_rng(seed, step * batch_size + place)
            try:
                row = fills[number](_load(one, transforms[number], index, rng))
                break
            except OSError as error:
                lost[number].add(index, error)
            except ValueError:
                if not (getattr(one, "unchecked", False) and one.is_bad(index)):
                    raise
            index = one.following(index)
        else:
            raise ValueError(f"None of the {one.ready} examples of {one.name} can be read.")
        if mixed:
            row |= {"part": np.int32(number), "example_id": np.int64(firsts[number] + index)}
        return row

    def load_rows(step: int, start: int, stop: int) -> list[dict[str, Any]]:
        first, last = mine(step).start, mine(step).stop
        return [load(step, place) for place in range(first + start, min(first + stop, last))]

    batches = _batches(load_rows, start_step, sys.maxsize, local, num_threads, num_workers)

    def to_cache() -> Iterator[list[tuple[Source, int]]]:
        """Each step's cached examples in an epoch, after the batches that are made at once."""
        cached = [isinstance(p.source, memory.InMemory) and not num_workers for p in parts]
        steps = -(-len(source) // batch_size) if any(cached) else 0
        for step in range(start_step + AHEAD, start_step + steps):
            rows = zip(*(array[mine(step)] for array in order.positions(step)))
            yield [(parts[p].source, order.index(p, i)) for p, i in rows if cached[p]]

    def finished() -> Iterator[Batch]:
        # While the first step compiles, the threads soon have nothing to do.
        with memory.filled(to_cache()), contextlib.closing(batches):
            for step, batch in enumerate(batches, start_step):
                if batch_transform is not None:
                    rng = row_rng(seed, step, BATCH_AUGMENT)
                    batch = _arrays(batch_transform(batch, rng))
                yield batch

    return finished()


def _identity(row: dict[str, Any]) -> dict[str, Any]:
    return row


def _samples(
    parts: Sequence[Part], transforms: Sequence[Transform], spec: Spec
) -> dict[str, dict[str, Any]]:
    """Sample arrays of each part: from its first example, and more until the spec is covered."""
    found: dict[str, dict[str, Any]] = {part.name: {} for part in parts}
    wanted = {key for key in spec if not key.endswith("_present")}
    for n in range(SAMPLES):
        for part, transform in zip(parts, transforms, strict=True):
            size = part.source.ready
            if n >= min(size, SAMPLES):
                continue
            index = n * size // min(size, SAMPLES)
            try:
                row = _load(part.source, transform, index, row_rng(0, index, EVAL))
            except OSError:  # reported by the run if this example is drawn
                continue
            except ValueError:
                if not (getattr(part.source, "unchecked", False) and part.source.is_bad(index)):
                    raise
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

    Every process yields the same number of batches of the same shape. The last batch is padded
    with copies of the last example, with `example_id` -1 and `<modality>_present` False. A random
    transform gets the same random numbers in each pass.

    Raises:
      ValueError: as `train_batches`.
    """
    local = _local_size(batch_size, process_index, process_count)
    if len(source) == 0:
        raise ValueError(f"Source {source.name} is empty: there is nothing to evaluate on.")

    def load(step: int, offset: int) -> dict[str, Any]:
        row = step * batch_size + process_index * local + offset
        index = min(row, len(source) - 1)
        try:
            example = _load(source, transform, index, row_rng(0, index, EVAL))
        except OSError as error:
            raise ValueError(
                f"Example number {index} of {source.name} is missing ({error}): an evaluation "
                "needs every example; restore the file."
            ) from error
        if row >= len(source):
            example["example_id"] = np.int64(-1)
            for key in [k for k in example if k.endswith("_present")]:
                example[key] = np.bool_(False)
        return example

    def load_rows(step: int, start: int, stop: int) -> list[dict[str, Any]]:
        return [load(step, offset) for offset in range(start, stop)]

    return _batches(load_rows, 0, -(-len(source) // batch_size), local, num_threads, 0)


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
      OSError: its file is missing; ValueError: it cannot be used (names its key).
    """
    key = f"number {index}"
    try:
        example = source[index]
    except OSError:  # a file that has disappeared: the caller decides
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
    """Only the arrays and numbers, in the batch's dtypes; text and bytes are dropped."""
    kept = {}
    for key, value in example.items():
        if isinstance(value, (np.ndarray, np.generic, bool, int, float)):
            array = np.asarray(value)
            if array.dtype in _HALF and key != "example_id":
                array = array.astype(_HALF[array.dtype])
            if array.dtype.kind in "biuf":
                kept[key] = array
    return kept


def _batches(
    load: Callable[[int, int, int], list[dict]],
    start: int,
    stop: int,
    size: int,
    num_threads: int,
    num_workers: int,
) -> Iterator[Batch]:
    """Batches `start` to `stop`, of at most `size` rows.

    Args:
      load: (batch, first row, row after the last) -> those rows, fewer where the batch has fewer.
    """
    # Threads pass rows on in chunks: on a machine that also trains, a hand-over waits for a core,
    # and one per row cost more than making the row.
    chunk = max(n for n in range(1, min(size, CHUNK) + 1) if size % n == 0)

    in_batch = size // chunk

    def load_chunk(i: int) -> list[dict]:
        step, first = i // in_batch, i % in_batch * chunk
        return load(step, first, first + chunk)

    last = min(stop * in_batch, sys.maxsize)
    chunks = grain.MapDataset.range(start * in_batch, last).map(load_chunk)
    if num_workers:
        return workers.in_processes(chunks.map(stack), num_workers, in_batch, _join)
    ahead = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=AHEAD * in_batch)
    return iter(chunks.to_iter_dataset(ahead).batch(in_batch, batch_fn=_stack_chunks))


def _stack_chunks(chunks: Sequence[list[dict[str, Any]]]) -> Batch:
    return stack([example for chunk in chunks for example in chunk])


def _join(chunks: Sequence[Batch]) -> Batch:
    """The batch of stacked chunks, as `stack` makes it of their rows."""
    chunks = [chunk for chunk in chunks if chunk]  # of a batch with fewer rows
    kinds = {tuple((k, v.shape[1:], v.dtype) for k, v in sorted(c.items())) for c in chunks}
    if len(kinds) > 1:  # a modality that a whole chunk lacks, or an error
        sizes = [len(chunk["example_id"]) for chunk in chunks]
        return stack(
            [{k: v[i] for k, v in c.items()} for c, n in zip(chunks, sizes) for i in range(n)]
        )
    return {key: np.concatenate([chunk[key] for chunk in chunks]) for key in chunks[0]}


def stack(examples: Sequence[dict[str, Any]]) -> Batch:
    """Stack rows to a batch; a modality missing in a row becomes zeros, with present False.

    Raises:
      ValueError: arrays that differ in shape or dtype, or a missing key that is not of a modality.
    """
    templates = {key: value for example in examples for key, value in example.items()}
    batch = {}
    for key, template in templates.items():
        default = np.zeros_like(template) if key.split("_")[0] in MODALITIES else None
        rows = [example.get(key, default) for example in examples]
        kinds = {None if row is None else (row.shape, row.dtype) for row in rows}
        if len(kinds) > 1:
            found = ", ".join(sorted(f"{kind[1]} {kind[0]}" for kind in kinds if kind))
            missing = "; some examples lack it" if None in kinds else ""
            raise ValueError(
                f"The examples of a batch differ in '{key}': {found}{missing}. "
                "End the transforms with steps that give every example the same shape."
            )
        batch[key] = stacked = np.empty((len(rows), *template.shape), template.dtype)
        for i, row in enumerate(rows):
            stacked[i] = row
    return batch
