"""Mixtures through the pipeline: what each row is, whoever reads it and wherever it goes on."""

import itertools
import json

import jax
import numpy as np
import pytest
from same import assert_same

from mmjax import config as configs
from mmjax.data import open_source
from mmjax.data.mixture import (
    Mixture,
    check_classes,
    classes_of,
    continued,
    history_of,
    make_transforms,
    open_training,
    renumbered,
)
from mmjax.data.pipeline import train_batches
from mmjax.data.source import Source


class Fake(Source):
    """Example `i` has the number `i` in every modality that it gives."""

    def __init__(self, gives: str, size: int = 10, side: int = 2, classes: int | str = 0):
        self.gives, self.size, self.side = gives.split(), size, side
        names = classes if isinstance(classes, str) else range(classes)
        self.name, self.class_names = f"fake {gives}", [str(c) for c in names] or None

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        everything = {
            "image": np.full((self.side, self.side, 3), i, np.uint8),
            "audio": np.full((3, 2), i, np.float32),
            "captions": [f"number {i}"],
            "label": i,
            "note": np.float32(i),
        }
        return {"key": f"{self.name} {i}"} | {k: everything[k] for k in self.gives}


class Words:
    """A tokenizer that writes a caption's number in every place."""

    def rows(self, texts, length):
        numbers = [int(text.split()[-1]) for text in texts]
        text = np.tile(np.array(numbers, np.int32)[:, None], length)
        return text, np.ones((1, length), bool), np.zeros(1, bool)

    def count(self, texts, truncated):
        pass


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
    monkeypatch.setitem(open_source.KINDS, "fake", Fake)


def data(parts, **settings):
    config = configs.defaults()
    config.data.train = {"kind": "mixture", "parts": parts}
    for name, value in settings.items():
        config.data[name] = value
    return config.data


def part(gives, weight=1.0, transform="", **source):
    source = {"kind": "fake", "gives": gives, **source}
    return {"source": source, "weight": weight, "transform": transform}


TEXT = "first_caption | tokenize(4)"
THREE = {
    "pairs": part("image captions", 2.0, TEXT, size=12),
    "sounds": part("audio", ((0, 0.0), (6, 2.0)), size=5),
    "texts": part("captions", 1.0, TEXT, size=7),
}
SPEC = {
    "image": jax.ShapeDtypeStruct((1, 2, 2, 3), np.uint8),
    "text": jax.ShapeDtypeStruct((1, 4), np.int32),
    "text_mask": jax.ShapeDtypeStruct((1, 4), np.bool_),
    "audio": jax.ShapeDtypeStruct((1, 3, 2), np.float32),
}


TEXTS = {name: SPEC[name] for name in ("image", "text", "text_mask")}


def batches(settings, n, source=None, spec=SPEC, **kwargs):
    source = source or open_training(settings)
    source, transform = make_transforms(source, settings, Words())
    kwargs = {"batch_size": 8, "seed": 3} | kwargs
    return list(itertools.islice(train_batches(source, transform, spec=spec, **kwargs), n))


def test_every_row_is_of_its_part_and_what_it_lacks_is_zeros():
    settings = data(THREE)
    source = open_training(settings)
    found = batches(settings, 30)
    modalities = [("image", "text"), ("audio",), ("text",)]
    for batch in found:
        assert {k: (v.dtype.name, v.shape[1:]) for k, v in batch.items()} == {
            **{k: (np.dtype(v.dtype).name, v.shape[1:]) for k, v in SPEC.items()},
            **{f"{m}_present": ("bool", ()) for m in ("image", "text", "audio")},
            "part": ("int32", ()),
            "example_id": ("int64", ()),
        }
        for row in range(8):
            number, index = batch["part"][row], batch["example_id"][row]
            key = source[int(index)]["key"]
            assert key.rsplit(" ", 1)[0] == source.parts[number].source.name
            for m in ("image", "text", "audio"):
                given = m in modalities[number]
                assert batch[f"{m}_present"][row] == given
                assert (batch[m][row] == (int(key.split()[-1]) if given else 0)).all()
            assert batch["text_mask"][row].all() == batch["text_present"][row]
    assert not found[0]["audio_present"].any()  # entirely absent in the first step
    parts = np.concatenate([b["part"] for b in found[6:]])
    assert np.abs(np.bincount(parts) / len(parts) - [0.4, 0.4, 0.2]).max() < 0.02


def test_starting_at_every_step_is_going_on():
    settings = data(THREE)
    whole = batches(settings, 14)
    for start in range(13):
        (one,) = batches(settings, 1, start_step=start)
        assert_same(one, whole[start])


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_the_batch(processes):
    settings = data(THREE)
    whole = batches(settings, 8)
    split = [
        batches(settings, 5, start_step=3, process_index=p, process_count=processes, num_threads=p)
        for p in range(processes)
    ]
    for step in range(5):
        rows = {k: np.concatenate([s[step][k] for s in split]) for k in whole[0]}
        assert_same(rows, whole[3 + step])


def test_weights_changed_on_resume_hold_from_that_step_and_nothing_is_forgotten():
    settings = data(THREE)
    first = open_training(settings)
    saved = json.loads(json.dumps(history_of(first)))
    assert history_of(continued(open_training(settings), saved, 10)) == [(0, saved[0][1])]

    changed = data(THREE)
    changed.train.parts.pairs.weight = 0.0
    later = continued(open_training(changed), saved, 10)
    assert [step for step, _ in history_of(later)] == [0, 10]
    before, after = (batches(settings, 40, source) for source in (first, later))
    for step in range(10):
        assert_same(before[step], after[step])
    assert all((b["part"] != 0).all() for b in after[10:])
    # Each part goes on through its epoch where it was.
    for number, size in enumerate((12, 5, 7)):
        ids = np.concatenate([b["example_id"][b["part"] == number] for b in after])
        epochs = ids[: len(ids) // size * size].reshape(-1, size)
        assert all(len(set(epoch)) == size for epoch in epochs) and len(ids)

    # Again, after a crash that lost the steps from 20 on, or of a checkpoint before the change.
    saved = json.loads(json.dumps(history_of(later)))
    assert history_of(continued(open_training(settings), saved, 20))[-1][0] == 20
    assert [step for step, _ in history_of(continued(open_training(settings), saved, 10))] == [0]


def test_a_part_may_come_later_and_none_may_go():
    two = {name: THREE[name] for name in ("pairs", "texts")}
    saved = history_of(open_training(data(two)))
    later = continued(open_training(data(THREE)), saved, 9)
    assert [step for step, _ in history_of(later)] == [0, 9]
    found = batches(data(THREE), 20, later)
    for a, b in zip(batches(data(two), 9, spec=TEXTS), found):
        np.testing.assert_array_equal(a["text"], b["text"])
    assert all((b["part"] != 1).all() for b in found[:9]) and (found[12]["part"] == 1).any()
    saved = history_of(open_training(data(THREE)))
    with pytest.raises(ValueError, match="weight for part 'sounds', which the mixture does not"):
        continued(open_training(data(two)), saved, 9)


def test_balanced_gives_every_set_of_modalities_the_same():
    parts = {
        "a": part("image captions", "balanced", TEXT, size=30),
        "b": part("image captions", "balanced", TEXT, size=10),
        "c": part("audio", "balanced", size=5),
        "d": part("captions", "balanced", TEXT, size=50),
        "e": part("image captions", "balanced", size=7),  # whose captions the chain does not read
    }
    weights = history_of(open_training(data(parts)))[0][1]
    assert weights == {"a": 30 / 40, "b": 10 / 40, "c": 1.0, "d": 1.0, "e": 1.0}
    # The tokenizer may come in the chain of all parts.
    for settings in parts.values():
        settings["transform"] = ""
    del parts["c"]
    together = open_training(data(parts, transform=TEXT))
    assert history_of(together)[0][1]["e"] == 7 / 47


def test_square_roots_and_proportions_of_an_imbalance_of_1_10_100():
    """Weights by hand: a set of modalities with n of 222 examples weighs (n / 222)^power."""
    for word, power in (("balanced", 0.0), ("sqrt", 0.5), ("proportional", 1.0)):
        parts = {
            "pairs": part("image captions", word, TEXT, size=2),
            "sounds": part("audio", word, size=20),
            "more": part("image", word, size=50),
            "images": part("image", word, size=150),
        }
        weights = history_of(open_training(data(parts)))[0][1]
        want = {"pairs": 1.0, "sounds": 10.0**power, "more": 0.25, "images": 0.75}
        want = {k: w * (100.0**power if k in ("more", "images") else 1) for k, w in want.items()}
        found = {k: w / weights["pairs"] for k, w in weights.items()}
        assert found == pytest.approx(want)
        rows = np.concatenate([b["part"] for b in batches(data(parts), 60)])
        counts = np.bincount(rows, minlength=4) / len(rows)
        total = sum(want.values())
        np.testing.assert_allclose(counts, [w / total for _, w in sorted(want.items())], atol=3e-3)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("sqr", "Part 'a' of the mixture has the weight 'sqr': .* Did you mean 'sqrt'"),
        ("balanced", "Part 'a' .* weight 'balanced' and part 'b' has 'sqrt': give all parts"),
        (1.0, "Part 'b' .* weight 'sqrt' and part 'a' has 1.0: give all parts 'sqrt'"),
    ],
)
def test_words_for_weights_are_of_all_parts(other, message):
    parts = {"a": part("image", other), "b": part("audio", "sqrt")}
    with pytest.raises(ValueError, match=message):
        open_training(data(parts))


def test_the_common_transform_comes_after_each_parts_own():
    parts = {
        "a": part("captions", transform="first_caption('1{}')"),
        "b": part("captions", transform="first_caption"),
    }
    parts["a"]["transform"] = "first_caption('x {}')"
    spec = {name: SPEC[name] for name in ("text", "text_mask")}
    found = batches(data(parts, transform="tokenize(4)"), 3, spec=spec)
    assert {b["text"].shape for b in found} == {(8, 4)}


def test_an_array_that_only_some_parts_give():
    mixed = {"a": part("image label"), "b": part("image note")}
    image = {"image": SPEC["image"]}
    (batch,) = batches(data(mixed), 1, spec=image)
    assert set(batch) == {"image", "image_present", "label", "part", "example_id"}
    wanted = np.where(batch["part"] == 0, batch["image"][:, 0, 0, 0].astype(np.int32), -1)
    np.testing.assert_array_equal(batch["label"], wanted)
    note = image | {"note": jax.ShapeDtypeStruct((1,), np.float32)}
    with pytest.raises(ValueError, match="Part 'a' .* gives no 'note', which part 'b'"):
        batches(data(mixed), 1, spec=note)
    with pytest.raises(ValueError, match="Part 'a' of the mixture gives no 'note'"):
        batches(data(mixed), 1, spec=image, batch_transform=lambda batch, rng: batch)


def test_a_plain_source_with_gaps_has_the_same_keys_in_every_batch():
    def some(example, rng):
        return example if example["label"] == 9 else {"label": example["label"]}

    spec = {"image": SPEC["image"], "label": jax.ShapeDtypeStruct((1,), np.int32)}
    source = Fake("image label")
    found = itertools.islice(train_batches(source, some, batch_size=2, seed=0, spec=spec), 5)
    for batch in found:
        assert set(batch) == {"image", "image_present", "label", "example_id"}
        np.testing.assert_array_equal(batch["image_present"], batch["label"] == 9)


def test_parts_that_do_not_fit_are_refused():
    sizes = {"a": part("image"), "b": part("image", side=4)}
    with pytest.raises(ValueError, match=r"'a' and 'b' .*'image' as uint8\[2, 2, 3\] and uint8\[4"):
        batches(data(sizes), 1)
    with pytest.raises(ValueError, match="No example gives 'image', which config.model needs"):
        batches(data({"a": part("captions", 1.0, TEXT), "b": part("audio")}), 1)


def test_lost_records_are_replaced_within_their_part(monkeypatch):
    read = Fake.__getitem__

    def gone(self, i):
        if self.gives == ["audio"] and i == 2:
            raise OSError("gone")
        return read(self, i)

    before = batches(data(THREE), 12)
    monkeypatch.setattr(Fake, "__getitem__", gone)
    after = batches(data(THREE), 12, max_lost_records=1)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(
            np.where(a["example_id"] == 14, 15, a["example_id"]), b["example_id"]
        )
    with pytest.raises(ValueError, match="fake audio has disappeared.*allows 0"):
        batches(data(THREE), 12)


def test_classes_are_those_that_the_parts_agree_on():
    parts = {"a": part("image label", classes=3), "b": part("captions", transform=TEXT)}
    assert open_training(data(parts)).class_names == ["0", "1", "2"]
    parts["c"] = part("image label", classes=3)
    source = open_training(data(parts))
    assert isinstance(source, Mixture) and len(source) == 30
    assert source.meta(29) == {"key": "fake image label 9", "label": 9}


def test_labels_of_different_classes_are_refused():
    """Both number their classes from 0, so a label of one would be another class in the other."""
    parts = {"a": part("image label", classes="xyz"), "c": part("image label", classes="wxy")}
    parts = {k: v | {"transform": "label"} for k, v in parts.items()}
    with pytest.raises(ValueError, match="'a' and 'c' of the mixture have different classes"):
        open_training(data(parts))
    parts["c"]["transform"] = ""
    source = open_training(data(parts))
    assert source.class_names is None and classes_of(source) == list("xyzw")
    with pytest.raises(ValueError, match="'a' and 'c' of the mixture have different classes"):
        check_classes(source)  # for a system that reads labels


@pytest.mark.parametrize("labeled", ["label", ""])
def test_labels_are_numbered_by_the_names_of_their_classes(labeled):
    """The same three classes, two of them, and the three as a head has them."""
    parts = {
        "a": part("image label", size=2, classes="zy"),
        "b": part("image label", size=3, classes="xyz"),
        "c": part("image", size=1),
    }
    parts = {k: v | {"transform": labeled if k != "c" else ""} for k, v in parts.items()}
    source = open_training(data(parts))
    check_classes(source)
    assert source.class_names == list("xyz")
    assert [source[i].get("label") for i in range(6)] == [2, 1, 0, 1, 2, None]
    headed = renumbered(source, list("zwyx"), "the head")
    assert headed.class_names == list("zwyx") and headed.history == source.history
    assert [headed.meta(i).get("label") for i in range(6)] == [0, 2, 3, 2, 0, None]
    spec = {"image": SPEC["image"], "label": jax.ShapeDtypeStruct((1,), np.int32)}
    for batch in batches(data(parts), 4, source=headed, spec=spec):
        want = np.array([0, 2, 3, 2, 0, -1])[batch["example_id"]]
        np.testing.assert_array_equal(batch["label"], want)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({}, "config.data.train has no parts"),
        (["a"], r"parts is \['a'\]: use a dict"),
        ({"a": 3}, r"parts\.a is 3: use a dict with a source"),
        ({"a": part("image") | {"weight": {"x": 1}}}, r"parts\.a\.weight is a dict"),
        ({"a": {"weight": 1.0}}, r"parts\.a has no source"),
        ({"a": part("image") | {"weigth": 1.0}}, "no setting 'weigth'. Did you mean 'weight'"),
        ({"a": part("image", -1.0)}, r"parts\.a\.weight has the value -1"),
        ({"a": part("image", 0.0)}, "weights of all parts of the mixture are 0 at step 0"),
        ({"a": part("image", ((5, 1.0), (2, 1.0)))}, r"parts\.a\.weight do not increase"),
        ({"a": part("image", size=0)}, r"parts\.a: fake image has no examples"),
        ({"a": part("image", color=1)}, r"parts\.a: .* has no setting 'color'"),
        (
            {"a": part("image"), "b": part("image", "balanced")},
            "'b' of the mixture has the weight 'balanced' and part 'a' has 1.0",
        ),
        (
            {"a": {"source": {"kind": "mixture", "parts": {"x": part("image")}}}},
            r"parts\.a: A source of kind 'mixture' is for training alone",
        ),
    ],
)
def test_wrong_settings_are_one_clear_sentence(parts, said):
    with pytest.raises(ValueError, match=said):
        open_training(data(parts))


def test_other_wrong_settings(caplog):
    with pytest.raises(ValueError, match="cached_transform is for one source"):
        open_training(data({"a": part("image")}, cached_transform="decode"))
    settings = data({"a": part("image")})
    with settings.unlocked():
        settings.train["part"] = 1
    with pytest.raises(ValueError, match="no setting 'part'. Did you mean 'parts'"):
        open_training(settings)
    open_training(data({"a": part("image"), "b": part("image", 0.0)}))
    assert "part 'b' of the mixture has weight 0 at every step" in caplog.text
