"""Mixtures of whole batches: each step of one part, with its own shapes and number of rows."""

import itertools
import json
import pickle

import drawn
import jax
import numpy as np
import pytest
from same import assert_same

from mmjax import batch as batches
from mmjax import config as configs
from mmjax.data import open_source
from mmjax.data.mixture import (
    about,
    continued,
    history_of,
    make_transforms,
    mean_rows,
    open_training,
    order_of,
)
from mmjax.data.pipeline import train_batches
from mmjax.data.source import Source
from mmjax.models.text import TextTransformer
from mmjax.pack import into_buckets, tokens_of
from mmjax.run.meter import Meter

OPENED = []


class Drawings(Source):
    """Images of `size` shapes, the number of each in all of its pixels."""

    def __init__(self, size: int = 11):
        self.name, self.size = f"{size} drawings", size
        OPENED.append(self)

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        return {"key": str(i), "image": np.full((4 + i, 23 - i, 3), i, np.uint8)}


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
    monkeypatch.setitem(open_source.KINDS, "drawings", Drawings)
    OPENED.clear()


def parts(**changed):
    """Two budgets of the same drawings, and a third of others; twelve patches a step or more."""
    source = {"kind": "drawings"}
    return {
        "few": {"source": source, "transform": "decode | patches(4, 4)", "weight": 2.0},
        "many": {"source": source, "transform": "decode | patches(12, 4)", "batch_size": 2},
        "others": {
            "source": {**source, "size": 9},
            "transform": "decode | patches(6, 4)",
            "weight": ((0, 0.0), (8, 1.0)),
            "batch_size": 4,
        },
    } | changed


def data(which, **settings):
    config = configs.defaults()
    config.data.train = {"kind": "mixture", "whole_batches": True, "parts": which, **settings}
    return config.data


def stream(source, settings, start_step=0, **more):
    made, transforms = make_transforms(source, settings, None)
    options = {"batch_size": 6, "seed": 3, "start_step": start_step, **more}
    return train_batches(made, transforms, **options)


def first(count, *given, **more):
    found = stream(*given, **more)
    batches_found = list(itertools.islice(found, count))
    found.close()
    return batches_found


def test_each_step_is_of_one_part_and_its_shapes():
    settings = data(parts())
    source = open_training(settings)
    assert len(OPENED) == 2  # parts of one source open it once
    found = first(30, source, settings)
    rows, lengths = {0: 6, 1: 2, 2: 4}, {0: 4, 1: 12, 2: 6}
    counts = np.zeros((31, 3))
    for step, batch in enumerate(found):
        (part,) = np.unique(batch["part"])
        assert batch["image"].shape == (rows[part], lengths[part], 48)
        index = batch["example_id"] - [0, 11, 22][part]
        assert (batch["image"][:, 0, 0] == index).all()  # the pixels of that example
        counts[step + 1] = counts[step] + np.eye(3)[part]
    off = np.abs(counts[:9, 0] / counts[:9, 1].clip(1) - 2)[6:]
    assert (off <= 1).all() and counts[2, 2] == 0 and counts[30, 2] >= 5


def test_parts_of_a_source_go_through_it_together():
    which = {k: v for k, v in parts().items() if k != "others"}
    settings = data(which)
    found = first(22, open_training(settings), settings)
    index = np.concatenate([batch["example_id"] % 11 for batch in found])
    for epoch in range(len(index) // 11):
        assert sorted(index[epoch * 11 : (epoch + 1) * 11]) == list(range(11))
    assert len({tuple(index[:11]), tuple(index[11:22])}) == 2
    said = about(open_training(settings), 6)  # in the report: epochs
    assert said["examples"] == 11
    np.testing.assert_allclose(said["rows"], len(index) / len(found), rtol=0.1)


def test_starting_at_every_step_is_going_on_for_any_number_of_processes():
    settings = data(parts())
    source = open_training(settings)
    whole = first(12, source, settings)
    for start in (1, 5, 9):
        for step, batch in enumerate(first(3, source, settings, start_step=start), start):
            assert_same(batch, whole[step])
    halves = [first(12, source, settings, process_index=p, process_count=2) for p in (0, 1)]
    joined = [{k: np.concatenate([one[k], other[k]]) for k in one} for one, other in zip(*halves)]
    for one, other in zip(joined, whole, strict=True):
        assert_same(one, other)


def test_weights_changed_on_resume_keep_what_was_seen():
    settings = data(parts())
    source = open_training(settings)
    changed = parts()
    changed["few"] = {**changed["few"], "weight": 0.0}
    after = continued(open_training(data(changed)), history_of(source), 7)
    one, other = (order_of(x, 6, 3) for x in (source, after))
    for step in range(7):
        np.testing.assert_equal(one.positions(step), other.positions(step))
    later = [other.positions(step)[0] for step in range(7, 20)]
    assert not any((part == 0).any() for part in later)
    copy = pickle.loads(pickle.dumps(other))  # as the processes that make rows get it
    np.testing.assert_equal(copy.positions(9), other.positions(9))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"many": {"batch_size": 0}}, "parts.many.batch_size is 0: use a whole number from 1"),
        ({"many": {"batch_size": 8}}, "parts.many.batch_size is 8, more than config.batch_size, 6"),
    ],
)
def test_rows_that_cannot_be_are_named(changed, words):
    which = parts()
    for name, settings in changed.items():
        which[name] = {**which[name], **settings}
    settings = data(which)
    with pytest.raises(ValueError, match=words):
        order_of(open_training(settings), 6, 0)


def test_rows_of_a_part_are_of_mixtures_of_whole_batches():
    settings = data(parts(), whole_batches=False)
    with pytest.raises(ValueError, match="parts.many has no setting 'batch_size'"):
        open_training(settings)
    settings = data(parts())
    with pytest.raises(ValueError, match="batch size is 2.*number of processes, 3"):
        first(9, open_training(settings), settings, process_count=3)


def test_arrays_may_be_shorter_where_the_spec_says_so():
    spec = {
        "image": batches.UpTo((1, 8, 48), np.uint8, axis=1),
        "image_grid": jax.ShapeDtypeStruct((1, 2), np.int32),
    }
    grid = np.ones((2, 2), np.int32)
    for length in (1, 8):
        batches.check({"image": np.zeros((2, length, 48), np.uint8), "image_grid": grid}, spec)
    for shape in ((2, 9, 48), (2, 8, 12), (2, 8, 8, 3)):
        with pytest.raises(ValueError, match=r"expects at most uint8\[8, 48\]|expects uint8"):
            batches.check({"image": np.zeros(shape, np.uint8), "image_grid": grid}, spec)


def test_texts_are_sorted_into_buckets_of_their_lengths(tmp_path, monkeypatch):
    class Captions(Source):
        name, size = "captions", 9

        def __len__(self):
            return self.size

        def __getitem__(self, i):
            return {"key": str(i), "captions": ["a", "word " * (3 * i)]}

    class Words:
        def rows(self, texts, length):
            mask = np.arange(length)[None] < np.array([[len(x.split())] for x in texts])
            return mask.astype(np.int32), mask, None

    buckets = into_buckets(tokens_of(Captions(), Words(), 18), (12, 3, 18))
    assert buckets == {3: [0, 1], 12: [2, 3, 4], 18: [5, 6, 7, 8]}  # 21 and 24 words are cut
    monkeypatch.setitem(open_source.KINDS, "captions", Captions)
    file = tmp_path / "lengths.json"
    file.write_text(json.dumps({"buckets": buckets}))
    wanted = {"kind": "bucket", "source": {"kind": "captions"}, "file": str(file), "length": 12}
    source = open_source.open_source(wanted)
    assert [source[i]["key"] for i in range(len(source))] == ["2", "3", "4"]
    for changed, words in (
        ({"length": 4}, "no bucket of length 4; it has 3, 12, 18"),
        ({"file": "none.json"}, "There is no 'none.json': write it with .*--lengths"),
    ):
        with pytest.raises(ValueError, match=words):
            open_source.open_source({**wanted, **changed})
    monkeypatch.setattr(Captions, "size", 8)
    with pytest.raises(ValueError, match="sorts 9 examples and captions has 8: write it again"):
        open_source.open_source(wanted)
    file.write_text("{}")
    with pytest.raises(ValueError, match="was not written by mmjax.pack --lengths"):
        open_source.open_source(wanted)


def test_a_shorter_array_gives_the_same_text():
    """Of the towers whose spec says so."""
    sizes = {"vocab_size": 9, "width": 8, "depth": 1, "heads": 2, "mlp_dim": 8, "length": 7}
    text = np.array([[3, 4, 5, 0], [1, 2, 0, 0]], np.int32)
    longer = np.pad(text, ((0, 0), (0, 3)))
    kinds = {"end": {}, "mean": {"causal": False, "mask_padding": True, "pool": "mean"}}
    for kind in kinds.values():
        tower = TextTransformer(**sizes, **kind)
        assert not tower.reads_padding
        batch = [{"text": x, "text_mask": x > 0} for x in (text, longer)]
        params = {"params": drawn.parameters(tower, batch[0])}
        one, other = (jax.jit(tower.apply)(params, x)["text_features"] for x in batch)
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    assert TextTransformer(**sizes, causal=False, pool="last").reads_padding
    assert TextTransformer(**sizes, causal=False).reads_padding


def test_rows_and_flops_of_a_step_are_means():
    settings = data({k: v for k, v in parts().items() if k != "others"})
    assert mean_rows(open_training(settings), 6) == (2 * 6 + 2) / 3
    meter, counted = Meter((2 * 6 + 2) / 3, [None]), []
    for size in (6, 2, 6):

        def count(size=size):
            counted.append(size)
            return 10.0 * size

        meter.add({"image": np.zeros((size, 4))}, count)
    assert counted == [6, 2] and meter.flops == pytest.approx(10 * 14 / 3)
    assert meter.read(14 / 3)["step_seconds"] == pytest.approx(1.0)
