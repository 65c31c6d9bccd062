"""An index on disk: killed at every write, refreshed, and refused to another model."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import commands
import numpy as np
import odd_names
import pytest
from png import png
from tiny_index import MODEL, asked, draw

from mmjax import storage
from mmjax.embedder import open_embedder
from mmjax.search import __main__ as command
from mmjax.search import build
from mmjax.search.index import Index, Writer, create
from mmjax.workdir import jsonl


@pytest.fixture(scope="module")
def embedder():
    return open_embedder(MODEL, sizes=(4,))


def make_folder(root):
    for i in range(10):
        draw(root / f"{i}.png", i)


def change_folder(root):
    """Three files leave, two change, four come, one of them a copy and one no image."""
    for i in range(3):
        (root / f"{i}.png").unlink()
    for i in (3, 4):
        draw(root / f"{i}.png", 100 + i)
        os.utime(root / f"{i}.png", ns=(1, 1))
    draw(root / "deep" / "a.png", 50)
    draw(root / "deep" / "b.png", 51)
    shutil.copy(root / "9.png", root / "copy.png")
    (root / "broken.jpg").write_bytes(b"GIF89a but not really")


def new_index(folder, root, embedder, storage="float32"):
    create(folder, root, str(MODEL), embedder.fingerprint, 16, storage)
    return build.update(Writer(folder), embedder)


def check(folder, root, embedder):
    """The index has just the folder's images, each with its own vector, copies in one row."""
    index = Index(folder)
    files = {str(p.relative_to(root)): p for p in root.rglob("*.*")}
    assert set(index.files) == set(files)
    assert set(index.faults()) == {n for n in files if n == "broken.jpg"}
    contents = {p.read_bytes() for n, p in files.items() if n != "broken.jpg"}
    assert index.rows == len(contents)
    for name, file in index.files.items():
        if not file.fault:
            vector = embedder.images([embedder.prepare(files[name].read_bytes())])[0]
            np.testing.assert_allclose(index.vectors[file.row], vector, atol=1e-6)


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def kill_at(monkeypatch, number):
    """Of all that changes the disk, the operation of that number is torn or never happens."""
    left = [number]

    def dies(real):
        def operation(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                if real is jsonl_append:  # torn in the middle of a line
                    path, rows = args
                    rows = list(rows)
                    real(path, rows[: len(rows) // 2])
                    with open(path, "a") as file:
                        file.write(json.dumps(rows[-1])[:9] if rows else "")
                raise Killed
            return real(*args, **kwargs)

        return operation

    jsonl_append = jsonl.append
    monkeypatch.setattr(jsonl, "append", dies(jsonl.append))
    monkeypatch.setattr(storage, "write", dies(storage.write))
    monkeypatch.setattr(os, "fsync", dies(os.fsync))
    monkeypatch.setattr(Path, "unlink", dies(Path.unlink))
    monkeypatch.setattr(os, "truncate", dies(os.truncate))


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_killed_at_every_write_it_loses_nothing_and_goes_on(tmp_path, embedder, storage):
    root, start = tmp_path / "pictures", tmp_path / "start"
    make_folder(root)
    new_index(start, root, embedder, storage)
    change_folder(root)
    kept = {f"{i}.png" for i in range(5, 10)}
    for number in range(1, 100):
        folder = tmp_path / f"killed{number}"
        shutil.copytree(start, folder)
        with pytest.MonkeyPatch.context() as monkeypatch:
            kill_at(monkeypatch, number)
            try:
                build.update(Writer(folder), embedder)
                break  # it has fewer writes than this
            except Killed:
                pass
        # Whoever reads it meanwhile finds what did not change, and no file that is not known.
        (hits,) = Index(folder).search(embedder.texts(["red"]), 100)
        assert kept <= {path for hit in hits for path in hit.paths}
        build.update(Writer(folder), embedder)
        if storage == "float32":
            check(folder, root, embedder)
        assert Index(folder).rows == 9
    assert 10 < number < 99
    names = {p.name.partition("-")[0] for p in folder.iterdir()}
    assert names == {"index.json", "files", "vectors"} | (
        {"scales"} if storage == "int8" else set()
    )
    assert len(list(folder.iterdir())) == len(names)  # of one generation


def test_what_is_as_before_is_not_read_again(tmp_path, embedder, monkeypatch):
    root, folder = tmp_path / "pictures", tmp_path / "index"
    make_folder(root)
    change_folder(root)
    first = new_index(folder, root, embedder)
    assert (first.embedded, first.duplicates, first.removed) == (9, 1, 0)
    assert list(first.unreadable) == ["broken.jpg"]
    monkeypatch.setattr(type(embedder), "prepare", None)
    writer = Writer(folder)
    monkeypatch.setattr(Path, "read_bytes", None)
    again = build.update(writer, embedder)
    assert (again.embedded, again.duplicates, again.removed) == (0, 0, 0)
    assert again.unreadable == first.unreadable


def test_a_copy_shares_its_row_and_outlives_the_original(tmp_path, embedder):
    root, folder = tmp_path / "pictures", tmp_path / "index"
    make_folder(root)
    shutil.copy(root / "9.png", root / "copy.png")
    new_index(folder, root, embedder)
    asked = embedder.images([embedder.prepare((root / "9.png").read_bytes())])
    (hits,) = Index(folder).search(asked, 1)
    assert hits[0].paths == ["9.png", "copy.png"] and hits[0].score == pytest.approx(1, abs=1e-5)
    (root / "9.png").unlink()
    build.update(Writer(folder), embedder)
    (hits,) = Index(folder).search(asked, 1)
    assert hits[0].paths == ["copy.png"] and Index(folder).rows == 10


def test_a_folder_that_is_empty_all_at_once_changes_nothing(tmp_path, embedder):
    """Such as that of a disk which is not mounted."""
    root, folder = tmp_path / "pictures", tmp_path / "index"
    make_folder(root)
    new_index(folder, root, embedder)
    shutil.rmtree(root)
    root.mkdir()
    with pytest.raises(ValueError, match="has no images below it"):
        build.update(Writer(folder), embedder)
    assert Index(folder).rows == 10


def test_a_damaged_index_is_refused(tmp_path, embedder):
    root, folder = tmp_path / "pictures", tmp_path / "index"
    make_folder(root)
    new_index(folder, root, embedder)
    os.truncate(folder / "vectors-0.bin", 100)
    with pytest.raises(ValueError, match="vectors-0.bin has 100 bytes and needs 640: restore it"):
        Index(folder)
    about = json.loads((folder / "index.json").read_text())
    for damage in ({}, about | {"dim": 1 << 62}):
        (folder / "index.json").write_text(json.dumps(damage))
        with pytest.raises(ValueError, match="is no index of this version"):
            Index(folder)


# ---- the commands -------------------------------------------------------------------------------


def search(*args):
    return commands.run("-m", "mmjax.search", *args)


def test_the_commands_on_a_folder_killed_while_it_is_indexed(tmp_path):
    root, folder = tmp_path / "pictures", tmp_path / "index"
    for i in range(300):
        draw(root / f"{i:03d}.png", i)
    given = ["index", root, f"--model={MODEL}", f"--index={folder}"]
    process = commands.start("-m", "mmjax.search", *given)
    log = folder / "files-0.jsonl"
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = Index(folder).rows
    assert before > 0
    done = search(*given)
    assert done.returncode == 0, done.stderr
    assert f"300 different images in float16; {300 - before} embedded" in done.stdout

    found = search("query", f"--image={root / '007.png'}", f"--index={folder}", "--k=3", "--json")
    first = json.loads(found.stdout.splitlines()[0])
    assert first["path"] == str(root / "007.png") and first["score"] == pytest.approx(1, abs=1e-3)
    assert len(found.stdout.splitlines()) == 3


def test_a_table_of_what_is_found(tmp_path, embedder, capsys):
    root, folder = tmp_path / "pictures", tmp_path / "index"
    make_folder(root)
    new_index(folder, root, embedder)
    command.query(asked("red", index=folder, k=4))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["score", "path"] and len(lines) == 6
    assert all(Path(line.split()[1]).is_file() for line in lines[2:])

    with pytest.raises(ValueError, match="was made by another model"):
        command.query(asked("red", index=folder, model=MODEL.parent / "clip_gelu"))
    with pytest.raises(ValueError, match="was made by another model"):
        command.index(asked(root, index=folder, model=MODEL.parent / "clip_gelu"))
    with pytest.raises(ValueError, match="is of the folder .*another --index"):
        command.index(asked(tmp_path, index=folder, model=MODEL))
    with pytest.raises(ValueError, match="Give `query` either words"):
        command.query(asked(index=folder))
    (tmp_path / "dot.png").write_bytes(png(1, 1))
    with pytest.raises(ValueError, match="has 1 x 1 pixels: each side needs 4"):
        command.query(asked(index=folder, image=tmp_path / "dot.png"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no images below it"):
        command.index(asked(tmp_path / "empty", index=tmp_path / "new", model=MODEL))


def test_an_index_that_is_not_there_is_one_sentence():
    done = search("query", "red", "--index=nowhere")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: There is no index in 'nowhere': make one with")


def test_odd_names_are_indexed_printed_and_kept(tmp_path, embedder, capsys):
    """Names that are not UTF-8 or hold line breaks, in the index, in its JSON and in its table."""
    root = tmp_path / "pictures"
    draw(root / "a.png", 1)
    for i, name in enumerate((odd_names.NOT_UTF8, odd_names.SEPARATED.encode())):
        draw(tmp_path / "x.png", 10 + i)
        odd_names.write(root, (tmp_path / "x.png").read_bytes(), name + b".png")
    new_index(tmp_path / "index", root, embedder)
    paths = {os.fsdecode(odd_names.NOT_UTF8) + ".png", odd_names.SEPARATED + ".png", "a.png"}
    assert set(Index(tmp_path / "index").files) == paths
    again = build.update(Writer(tmp_path / "index"), embedder)
    assert (again.embedded, again.removed) == (0, 0)
    command.query(asked("red", index=tmp_path / "index", json=True))
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {os.path.relpath(row["path"], root) for row in rows} == paths
    command.query(asked("red", index=tmp_path / "index"))
    table = capsys.readouterr().out
    assert len(table.splitlines()) == 5
    assert r"caf\udce9.png" in table and r"a\u2028b\nc.png" in table
