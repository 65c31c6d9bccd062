"""The manifest of a run's data: what is noticed of changed files, and what is said about it."""

import json
import os

import pytest
from ml_collections import ConfigDict
from written_sets import write_folder

from mmjax import config as configs
from mmjax.data import file_list, mixture
from mmjax.data.source import Source
from mmjax.run import data_manifest


class Files(Source):
    """A source that reads the files of a folder."""

    def __init__(self, root, count=4):
        self.name, self._root, self._count = str(root), root, count

    def __len__(self):
        return self._count

    def files(self):
        return sorted(path for path in self._root.rglob("*") if path.is_file())


@pytest.fixture
def root(tmp_path):
    for name in ("a.tar", "b.tar", "c.tar", "d.tar"):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / name).write_bytes(name.encode() * 10)
    return tmp_path / "set"


@pytest.fixture
def large(monkeypatch):
    """Sets of which no contents are read."""
    monkeypatch.setattr(file_list, "HASHED_BYTES", 0)


def later(path):
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


def make(root, **count):
    return data_manifest.make(Files(root, **count), configs.defaults(), None)


def begun(root, workdir):
    """The JSON part of the checkpoint of a run that began with these files."""
    manifest = make(root)
    data_manifest.write(workdir, manifest)
    # A checkpoint stays small, and goes through JSON.
    saved = json.loads(json.dumps({"data": data_manifest.summary(manifest), "examples": 4}))
    assert "a.tar" not in json.dumps(saved)
    return saved


def test_other_files_are_told_by_name_and_size(root, tmp_path, large):
    saved = begun(root, tmp_path)
    assert data_manifest.changes(tmp_path, make(root), saved) == {}
    (root / "a.tar").unlink()
    (root / "b.tar").write_bytes(b"2" * 1234)
    later(root / "c.tar")
    for number in range(5):
        (root / f"e{number}.tar").write_bytes(b"")
    (said,) = data_manifest.changes(tmp_path, make(root), saved).values()
    assert said == (
        "1 is missing (a.tar), 5 are new (e0.tar; e1.tar; e2.tar; and 2 more), 2 have changed "
        "(b.tar from 50 bytes to 1,234; c.tar, as large as before, with another time of "
        "modification)"
    )


def test_of_a_small_set_the_contents_count_and_not_the_time_nor_the_place(root, tmp_path):
    saved = begun(root, tmp_path)
    later(root / "a.tar")
    moved = root.rename(tmp_path / "elsewhere")
    assert data_manifest.changes(tmp_path, make(moved), saved) == {}
    stat = (moved / "b.tar").stat()
    (moved / "b.tar").write_bytes(b"x" * 50)
    os.utime(moved / "b.tar", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (said,) = data_manifest.changes(tmp_path, make(moved), saved).values()
    assert said == "1 has changed (b.tar, as large as before, with other contents)"


def test_of_very_many_files_folders_are_listed(root, tmp_path, large, monkeypatch):
    monkeypatch.setattr(file_list, "LISTED", 3)
    for folder in ("x", "y"):
        (root / folder).mkdir()
        for n in range(3):
            (root / folder / f"{n}.png").write_bytes(b"1")
    saved = begun(root, tmp_path)
    entries = make(root)["sources"][""]["entries"]
    assert [(e.name, e.files, e.bytes) for e in entries] == [
        ("./", 4, 200),
        ("x/", 3, 3),
        ("y/", 3, 3),
    ]
    later(root / "x" / "1.png")
    (root / "y" / "2.png").unlink()
    (said,) = data_manifest.changes(tmp_path, make(root), saved).values()
    assert "x/, as large as before" in said and "y/ from 3 files to 2" in said


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "is missing"),
        ('{"format": 1, "sour', "is damaged (JSONDecodeError)"),
        ("[]", "is damaged (TypeError)"),
        (
            '{"sources": {"": {"digest": "0", "entries": [["a.tar", 50, "1"]]}}}',
            "is damaged (its files do not have its digest)",
        ),
        ("other", "is of another run than the checkpoint"),
    ],
)
def test_a_damaged_manifest_or_that_of_another_run(root, tmp_path, capsys, content, fault):
    saved = begun(root, tmp_path)
    if content is None:
        (tmp_path / "data.json").unlink()
    elif content == "other":
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "a.tar").write_bytes(b"1")
        begun(tmp_path / "other", tmp_path)
    else:
        (tmp_path / "data.json").write_text(content)
    assert data_manifest.changes(tmp_path, make(root), saved) == {}  # the data are the same
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and f"data.json {fault}: it is written again" in said
    (root / "a.tar").unlink()
    (what,) = data_manifest.changes(tmp_path, make(root), saved).values()
    assert what == (
        "4 files of 200 bytes before and 3 of 150 now, which cannot be named without the "
        "data.json of that run"
    )


def test_changed_files_are_refused_unless_allowed_by_name(root, tmp_path, capsys):
    source, config, saved = Files(root), configs.defaults(), {"examples": 4}
    changed = {"": "1 is missing (a.tar)"}
    for more in ("Restore them", "--allow_change=data.train"):
        with pytest.raises(ValueError, match=f"The files of .*set are not .*a.tar.*{more}"):
            data_manifest.check_examples(source, saved, config, ("seed",), changed)
    data_manifest.check_examples(source, saved, config, ("data.train",), changed)
    assert "warning: the files of" in capsys.readouterr().out
    with pytest.raises(
        ValueError, match=r"4 examples and had 5 .*saved \(1 is missing \(a.tar\)\)"
    ):
        data_manifest.check_examples(source, {"examples": 5}, config, (), changed)
    assert data_manifest.changes(tmp_path, make(root), {}) == {}  # saved before there was one


def test_parts_of_a_mixture_and_of_combined_sources(tmp_path, monkeypatch):
    """Each part of a mixture by its name; files of the same name in two folders."""
    monkeypatch.setenv("MMJAX_DATA_DIR", str(tmp_path / "cache"))
    one, two = (write_folder(tmp_path / name, 3) for name in ("one", "two"))
    joined = {"kind": "joined", "sources": [one, two]}
    parts = {
        "plain": {"source": one},
        "both": {"source": {"kind": "part", "source": joined, "stop": 0.5}},
    }
    config = configs.defaults()
    config.data.train = ConfigDict({"kind": "mixture", "parts": parts})

    def now():
        source = mixture.open_training(config.data, workdir=tmp_path)
        return data_manifest.make(source, config, None)

    manifest = now()
    data_manifest.write(tmp_path, manifest)
    counts = {name: one["files"] for name, one in manifest["sources"].items()}
    assert counts == {"plain": 4, "both": 8}
    (tmp_path / "two" / "captions.jsonl").write_text(
        (tmp_path / "two" / "captions.jsonl").read_text().replace("number", "no.")
    )
    saved = {"data": data_manifest.summary(manifest)}
    assert data_manifest.changes(tmp_path, now(), saved) == {
        "both": "1 has changed (source 2: captions.jsonl from 183 bytes to 174)"
    }


def test_a_file_that_changes_while_the_run_reads_it(root, monkeypatch):
    watch = file_list.Watch([Files(root)])
    with pytest.raises(ValueError, match="^no image$"), watch.explaining():
        raise ValueError("no image")
    assert watch.changed() == ""
    (root / "b.tar").write_bytes(b"1")
    with (
        pytest.raises(
            ValueError, match=r"^no image Of the files .*b.tar from 50 bytes to 1\) since"
        ),
        watch.explaining(),
    ):
        raise ValueError("no image")
    (root / "c.tar").unlink()
    assert watch.changed().startswith("1 is missing (") and watch.changed() == ""


def test_the_files_of_evaluators_are_listed_and_a_change_is_told(root, tmp_path, capsys, large):
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.tar").write_bytes(b"x")
    sources = {"seen.source": Files(root), "new.source": Files(other)}
    begun(root, tmp_path)
    data_manifest.add_evaluators(tmp_path, sources)
    content = json.loads((tmp_path / "data.json").read_text())
    seen, new = content["evaluators"]["seen.source"], content["evaluators"]["new.source"]
    assert seen["digest"] == content["sources"][""]["digest"] and new["files"] == 1
    assert [entry[0] for entry in content["lists"][new["digest"]]] == ["x.tar"]
    assert list(content["lists"]) == [new["digest"]]  # the others are the training source's
    begun(root, tmp_path)  # a restart, with the same files
    data_manifest.add_evaluators(tmp_path, sources)
    assert "warning" not in capsys.readouterr().out
    (other / "y.tar").write_bytes(b"y")
    later(other / "x.tar")
    begun(root, tmp_path)
    data_manifest.add_evaluators(tmp_path, sources)
    said = capsys.readouterr().out
    assert "evals.new.source are not those of when" in said and "1 is new (y.tar)" in said
    text = (tmp_path / "data.json").read_text()
    for damaged in ("[]", "[" * 100_000, text.replace('[["x.tar", 1,', '[[["x.tar"],')):
        assert damaged != text
        (tmp_path / "data.json").write_text(damaged)
        (other / "y.tar").write_bytes(damaged[:9].encode())
        begun(root, tmp_path)
        data_manifest.add_evaluators(tmp_path, sources)
        assert "warning" not in capsys.readouterr().out
