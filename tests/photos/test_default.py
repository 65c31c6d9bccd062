"""The default model's cache: built once, by one process, checked, and never half written."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mmjax.photos import default


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMJAX_DATA_DIR", str(tmp_path))
    return tmp_path


def build_slowly(work):
    """A build that notes that it began, and takes a while."""
    builds = work.parent.parent / "builds"
    with builds.open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(0.3)
    (work / "run" / "checkpoints").mkdir(parents=True)
    (work / "run" / "checkpoints" / "weights").write_text("w" * 100)


def builds(cache):
    return len((cache / "builds").read_text().splitlines())


def test_two_at_once_build_it_once(cache, monkeypatch):
    monkeypatch.setattr(default, "build", build_slowly)
    with ThreadPoolExecutor(2) as pool:  # each opens the lock's file for itself, as processes do
        paths = list(pool.map(lambda _: default.default_model(), range(2)))
    assert paths == [default.path_of()] * 2 and builds(cache) == 1
    assert sorted(p.name for p in (cache / "models").iterdir()) == [".photos-1.lock", "photos-1"]


def test_a_damaged_one_is_built_again(cache, monkeypatch, capsys):
    monkeypatch.setattr(default, "build", build_slowly)
    path = default.default_model()
    assert default.named_or_default(None) == default.named_or_default(str(path)) == str(path)
    assert default.named_or_default("runs/a") == "runs/a" and builds(cache) == 1
    (cache / "link").symlink_to(path)  # an index names its model without links
    assert default.named_or_default(str(cache / "link")) == str(path)
    weights = path / "checkpoints" / "weights"
    for change, words in (
        (lambda: weights.write_text("v" * 100), "checkpoints/weights has changed"),
        (weights.unlink, "checkpoints/weights is missing"),
        ((path / "model.json").unlink, "its model.json cannot be read"),
    ):
        change()
        assert default.default_model() == path and weights.read_text() == "w" * 100
        assert f"the default model is damaged ({words}): building" in capsys.readouterr().err
    assert builds(cache) == 4


def test_a_failed_build_leaves_nothing_and_says_what_to_do(cache, monkeypatch):
    monkeypatch.setattr(default, "build", lambda work: default._run("mmjax.no_such_module"))
    with pytest.raises(ValueError, match=r"cannot be built, .*: try again .* or give --model"):
        default.default_model()
    assert [p.name for p in (cache / "models").iterdir()] == [".photos-1.lock"]
