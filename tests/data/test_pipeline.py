"""The pipeline: order and augmentation from (seed, step) alone, whoever reads and from wherever."""

import hashlib
import itertools
import threading
import time

import numpy as np
import pytest
from numbered import Numbers, noisy, take
from same import assert_same

from mmjax.data.draws import row_rng
from mmjax.data.pipeline import eval_batches, stack, train_batches
from mmjax.data.sources.memory import InMemory


class Wrapped(Numbers):
    """More examples than a uint8 counts."""

    def __getitem__(self, i):
        return {"key": f"key-{i}", "image": np.full((2, 2, 3), i % 256, np.uint8)}


def test_batch_contents():
    (batch,) = take(1, train_batches(Numbers(10), noisy, batch_size=4, seed=0))
    dtypes = {key: value.dtype.name for key, value in batch.items()}
    assert dtypes == {
        "image": "uint8",
        "image_present": "bool",
        "noise": "int32",
        "label": "int32",
        "weight": "float32",
        "example_id": "int64",
    }
    assert batch["image"].shape == (4, 2, 2, 3) and batch["image_present"].all()
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["example_id"])


@pytest.mark.parametrize("batch_size", [4, 6, 10, 16])
def test_every_epoch_is_another_permutation(batch_size):
    batches = train_batches(Numbers(10), noisy, batch_size=batch_size, seed=1)
    rows = np.concatenate([b["example_id"] for b in take(60 // batch_size + 1, batches)])
    epochs = rows[:60].reshape(6, 10)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(10), (6, 1)))
    assert len({tuple(e) for e in epochs}) == 6


def test_the_shuffle_is_fair():
    # each of 10 examples stands first in about a tenth of the orders: chi-square, 9 degrees of
    # freedom, exceeds 33.7 once in 10,000
    first = [
        take(1, train_batches(Numbers(10), noisy, batch_size=1, seed=s, num_threads=1))[0]
        for s in range(200)
    ]
    counts = np.bincount([b["example_id"][0] for b in first], minlength=10)
    assert ((counts - 20) ** 2 / 20).sum() < 33.7


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_the_single_process_batch(processes):
    whole = take(5, train_batches(Numbers(11), noisy, batch_size=8, seed=2))
    parts = [
        take(
            5,
            train_batches(
                Numbers(11),
                noisy,
                batch_size=8,
                seed=2,
                process_index=p,
                process_count=processes,
                num_threads=p,
            ),
        )
        for p in range(processes)
    ]
    for step, batch in enumerate(whole):
        union = {key: np.concatenate([part[step][key] for part in parts]) for key in batch}
        assert_same(union, batch)


def mixed(rng):
    return {"mix": rng.random(2)}


@pytest.mark.parametrize("start", [1, 3, 40])
def test_starting_late_is_skipping(start):
    settings = {"batch_size": 4, "seed": 3, "batch_transform": lambda b, rng: b | mixed(rng)}
    whole = take(start + 3, train_batches(Numbers(10), noisy, **settings))[start:]
    late = take(3, train_batches(Numbers(10), noisy, **settings, start_step=start))
    for a, b in zip(whole, late, strict=True):
        assert_same(a, b)


def test_threads_change_nothing():
    runs = [
        take(4, train_batches(Numbers(9), noisy, batch_size=6, seed=4, num_threads=t))
        for t in (0, 1, 5)
    ]
    for batches in zip(*runs, strict=True):
        assert_same(batches[0], batches[1])
        assert_same(batches[0], batches[2])


def test_the_order_of_a_plain_source_is_what_it_was():
    # Checksums of the batches before there were mixtures: a run of then resumes exactly.
    wanted = {
        (10, 4, 0, 0): "3638fa77cb0a1304",
        (1000, 32, 7, 0): "154d313ce7ed50ec",
        (1000, 32, 7, 12345): "a6cd32a8cfec0dcc",
        (3, 8, 1, 5): "dd7cc148390e1a66",
    }

    def noise(example, rng):
        image = example["image"][:1, :1]
        return {"image": image, "noise": rng.integers(0, 2**31)}

    for (n, batch_size, seed, start), checksum in wanted.items():
        found = hashlib.sha256()
        settings = {"batch_size": batch_size, "seed": seed, "start_step": start}
        mix = {"batch_transform": lambda batch, rng: {**batch, "mix": rng.random(3)}}
        for batch in take(12, train_batches(Wrapped(n), noise, **settings, **mix)):
            for key in sorted(batch):
                array = batch[key]
                found.update(key.encode() + array.dtype.str.encode() + array.tobytes())
        assert found.hexdigest()[:16] == checksum


def test_a_rows_generator_is_philox_with_seed_use_and_row():
    for seed, row, use in ((0, 0, 0), (2**32 - 1, 2**40, 3)):
        philox = np.random.Philox(key=[seed, use], counter=[0, 0, 0, row])
        wanted = np.random.Generator(philox)
        found = row_rng(seed, row, use)
        np.testing.assert_array_equal(found.integers(2**63, size=9), wanted.integers(2**63, size=9))
        assert found.random() == wanted.random()


def test_augmentation_differs_between_rows_epochs_and_seeds():
    noise = {
        seed: np.concatenate(
            [b["noise"] for b in take(8, train_batches(Numbers(8), noisy, batch_size=8, seed=seed))]
        )
        for seed in (0, 1)
    }
    both = np.concatenate([noise[0], noise[1]])
    assert len(np.unique(both)) == len(both)


def test_batch_transform_gets_numbers_of_its_own_the_same_in_all_processes():
    def mix(batch, rng):
        return {**batch, "mix": rng.random(3)}

    def run(process):
        settings = {"batch_size": 4, "seed": 0, "process_count": 2, "batch_transform": mix}
        return take(3, train_batches(Numbers(8), noisy, **settings, process_index=process))

    first, other = run(0), run(1)
    for a, b in zip(first, other, strict=True):
        np.testing.assert_array_equal(a["mix"], b["mix"])
        assert not np.intersect1d(a["mix"], np.concatenate([a["noise"], b["noise"]])).size
    draws = np.concatenate([b["mix"] for b in first])
    assert draws.dtype == np.float32 and len(np.unique(draws)) == len(draws)


@pytest.mark.parametrize("n, batch_size, processes", [(10, 4, 1), (8, 4, 2), (3, 8, 4), (9, 8, 2)])
def test_evaluation_counts_every_example_once(n, batch_size, processes):
    parts = [
        list(
            eval_batches(
                Numbers(n),
                noisy,
                batch_size=batch_size,
                process_index=p,
                process_count=processes,
            )
        )
        for p in range(processes)
    ]
    assert {len(part) for part in parts} == {-(-n // batch_size)}
    rows = [np.concatenate([p[s]["example_id"] for p in parts]) for s in range(len(parts[0]))]
    ids = np.concatenate(rows)
    np.testing.assert_array_equal(ids[:n], np.arange(n))
    assert (ids[n:] == -1).all() and len(ids) % batch_size == 0
    for batch in itertools.chain(*parts):
        np.testing.assert_array_equal(batch["image_present"], batch["example_id"] >= 0)
        assert batch["image"].shape[0] == batch_size // processes
        real = batch["example_id"] >= 0
        np.testing.assert_array_equal(batch["image"][real, 0, 0, 0], batch["example_id"][real])


def until(done):
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def fill_threads():
    return [t for t in threading.enumerate() if t.name == "fill_cache"]


def test_cached_examples_of_the_first_epoch_are_computed_meanwhile():
    made = []

    def decode(example, rng):
        made.append(int(example["key"][4:]))
        return example

    settings = {"batch_size": 4, "seed": 6}
    wanted = take(12, train_batches(Numbers(40), noisy, **settings))
    batches = train_batches(InMemory(Numbers(40), decode), noisy, **settings)
    found = [next(batches)]
    until(lambda: not fill_threads())
    assert sorted(set(made)) == list(range(40))  # by one batch
    done = len(made)
    found += take(11, batches)
    assert len(made) == done
    for a, b in zip(found, wanted, strict=True):
        assert_same(a, b)


def test_computing_ahead_leaves_errors_to_their_batch_and_ends_with_the_batches():
    source = Numbers(40, bad=7)
    settings = {"batch_size": 4, "seed": 6}
    good = take(10, train_batches(Numbers(40), noisy, **settings))
    at = next(i for i, batch in enumerate(good) if 7 in batch["example_id"])
    assert at > 2
    batches = train_batches(InMemory(source, lambda e, rng: e), noisy, **settings)
    for batch in good[:at]:
        assert_same(next(batches), batch)
    with pytest.raises(ValueError, match="Example number 7 of numbers .*the disk is gone"):
        next(batches)

    slow = threading.Event()
    batches = train_batches(
        InMemory(Wrapped(4000), lambda e, rng: slow.wait(0.01) or e), noisy, **settings
    )
    next(batches)
    assert fill_threads()
    batches.close()
    until(lambda: not fill_threads())
    assert not slow.is_set()


def test_a_bad_example_is_named():
    batches = train_batches(Numbers(10, bad=7), noisy, batch_size=5, seed=0)
    with pytest.raises(ValueError, match="Example number 7 of numbers .*the disk is gone"):
        take(2, batches)

    def refuse(example, rng):
        if example["key"] == "key-4":
            raise RuntimeError("too green")
        return example

    with pytest.raises(ValueError, match="Example 'key-4' of numbers .*too green"):
        list(eval_batches(Numbers(10), refuse, batch_size=5))


def test_bad_arguments():
    with pytest.raises(ValueError, match="batch size is 6.*processes, 4"):
        train_batches(Numbers(8), noisy, batch_size=6, seed=0, process_count=4)
    with pytest.raises(ValueError, match="numbers is empty"):
        train_batches(Numbers(0), noisy, batch_size=2, seed=0)
    with pytest.raises(ValueError, match="numbers is empty"):
        eval_batches(Numbers(0), noisy, batch_size=2)
    with pytest.raises(ValueError, match="seed is -1"):
        train_batches(Numbers(4), noisy, batch_size=2, seed=-1)
    with pytest.raises(ValueError, match="no process 2 among 2"):
        train_batches(Numbers(4), noisy, batch_size=2, seed=0, process_index=2, process_count=2)


def test_a_missing_modality_is_zeros_and_not_present():
    def halved(example, rng):
        text = {"text": np.ones(3, np.int32), "text_mask": np.ones(3, bool)}
        return {**example, **(text if int(example["key"][4:]) % 2 else {})}

    (batch,) = eval_batches(Numbers(4), halved, batch_size=4)
    odd = np.array([False, True, False, True])
    np.testing.assert_array_equal(batch["text_present"], odd)
    np.testing.assert_array_equal(batch["text"], np.repeat(odd[:, None], 3, 1).astype(np.int32))
    np.testing.assert_array_equal(batch["text_mask"], np.repeat(odd[:, None], 3, 1))
    assert batch["image_present"].all()


def test_rows_that_do_not_stack_are_named():
    rows = [{"image": np.zeros((2, 2, 3), np.uint8)}, {"image": np.zeros((3, 2, 3), np.uint8)}]
    with pytest.raises(ValueError, match=r"differ in 'image'.*\(2, 2, 3\).*\(3, 2, 3\)"):
        stack(rows)
    with pytest.raises(ValueError, match="differ in 'label'.*lack it"):
        stack([{"label": np.int32(1)}, {}])
