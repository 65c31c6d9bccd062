"""ESC-10: its folds and classes, from a folder and from its archive."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmjax.data.builders import esc10
from mmjax.data.open_source import open_source
from mmjax.data.transforms.parse import parse

ARCHIVE = Path(
    os.environ.get("MMJAX_ESC10", Path(__file__).parents[3] / "../shared/data/esc10.tar")
)


def write_sounds(root):
    """Two clips of each class and fold, of a tone of the class's frequency."""
    for number, name in enumerate(esc10.CLASSES):
        folder = root / "esc10" / f"{number + 1:03d} - {name.capitalize()}"
        folder.mkdir(parents=True)
        tone = 0.5 * np.sin(np.arange(800) * (number + 1) / 10)
        for fold in range(1, 6):
            for take in "AB":
                file = io.BytesIO()
                soundfile.write(file, tone, 8000, format="OGG", subtype="VORBIS")
                (folder / f"{fold}-{number}23-{take}.ogg").write_bytes(file.getvalue())


def test_a_split_is_a_fold(tmp_path):
    write_sounds(tmp_path)
    config = {"kind": "tfds", "name": "esc10", "root": str(tmp_path / "esc10")}
    config |= {"data_dir": str(tmp_path / "cache")}
    test, train = (open_source(config | {"split": x}) for x in ("fold2", "all-fold2"))
    assert len(test) == 20 and len(train) == 80
    assert test.class_names == list(esc10.CLASSES)
    assert {test[i]["file"][0] for i in range(20)} == {"2"}
    assert {train[i]["file"][0] for i in range(80)} == set("1345")
    assert test[4]["label"] == 2 and test[4]["file"] == "2-223-A.ogg"
    found = parse("waveform(0.2, 8000) | label")(test[4], None)
    assert found["waveform"].shape == (1600,) and found["label"] == 2
    with tarfile.open(tmp_path / "esc10.tar", "w") as archive:
        archive.add(tmp_path / "esc10", "esc10")
    assert esc10.read_sounds(tmp_path / "esc10.tar") == esc10.read_sounds(tmp_path)
    with tarfile.open(tmp_path / "esc10.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "esc10", "esc10")
    whole = (tmp_path / "esc10.tar.gz").read_bytes()
    (tmp_path / "esc10.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="esc10.tar.gz cannot be read .*set root"):
        esc10.read_sounds(tmp_path / "esc10.tar.gz")
    (tmp_path / "esc10" / "002 - Rain" / "3-123-B.ogg").unlink()
    with pytest.raises(ValueError, match="1 sounds of 'rain' in fold3 and 2 in others.*set root"):
        esc10.read_sounds(tmp_path)


def test_sounds_that_are_not_there(tmp_path):
    for root in (None, tmp_path / "absent"):
        with pytest.raises(ValueError, match="no sounds of ESC-10 at.*set root"):
            esc10.read_sounds(root)
    folder = tmp_path / "002 - Rain"
    folder.mkdir()
    (folder / "1-123-A.ogg").touch()
    with pytest.raises(ValueError, match=r"has the folds \['fold1'\], and ESC-10 5"):
        esc10.read_sounds(tmp_path)
    (tmp_path / "a.tar").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="a.tar cannot be read"):
        esc10.read_sounds(tmp_path / "a.tar")


@pytest.mark.skipif(not ARCHIVE.exists(), reason="ESC-10's archive is not here (MMJAX_ESC10)")
def test_the_real_sounds():
    sounds = esc10.read_sounds(ARCHIVE)
    for clips in sounds.values():
        assert np.bincount([number for _, number, _ in clips]).tolist() == [8] * 10
    recordings = [{name.split("-")[1] for name, _, _ in clips} for clips in sounds.values()]
    assert sum(map(len, recordings)) == len(set().union(*recordings))
