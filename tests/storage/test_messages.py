"""Messages about a run in a bucket name its URL, and not the temporary folder that mirrors it."""

import pytest

from mmjax.data.bad_records import BadRecord, FoundBad, allow
from mmjax.run import data_manifest
from mmjax.storage import mirror
from mmjax.workdir.checkpoint import CheckpointError, Checkpoints, DamagedError
from mmjax.workdir.manifest import read_manifest

URL = "s3://bucket/run"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / mirror.MARK).write_text(URL)
    return tmp_path


def test_urls_are_shown_as_they_are(folder):
    assert mirror.shown(f"{URL}/a") == mirror.shown(folder / "a") == f"{URL}/a"


def test_of_checkpoints(folder):
    saves = Checkpoints(folder)
    with pytest.raises(DamagedError, match=f"The checkpoint {URL}/checkpoints/4 is damaged"):
        saves.run(4)
    with pytest.raises(CheckpointError, match=f"could not be written to {URL}/checkpoints "):
        saves.save(4, {}, {"unwritable": {1, 2}})


def test_of_bad_records_and_manifests(folder, capsys):
    bad = BadRecord("a", "unreadable_image", "torn")
    with pytest.raises(ValueError, match=f"listed in {URL}/bad_records.jsonl"):
        allow([bad], 9, 0, "set", folder)
    with pytest.raises(ValueError, match=f"listed in {URL}/bad_records.jsonl"):
        FoundBad("set", 0, 9, 0, folder).add(bad)
    (folder / "run.json").write_text("{")
    with pytest.raises(ValueError, match=f"^{URL}/run.json is not JSON"):
        read_manifest(folder)
    had = {"data": {"sources": {}}}
    assert data_manifest.changes(folder, {"sources": {}}, had) == {}
    assert f"warning: {URL}/data.json is missing" in capsys.readouterr().out
