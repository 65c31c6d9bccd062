"""The index of shards: against a slow reference, after changes, and by several processes."""

import contextlib
import io
import json
import os
import pickle
import random
import tarfile
import threading

import commands
import numpy as np
import pytest

from mmjax.data import columns
from mmjax.data.shards import build, index, merged
from mmjax.data.shards.pattern import find_shards
from mmjax.data.sources.webdataset import open_shards
from mmjax.run import experiment
from mmjax.workdir import jsonl

SETTINGS = build.Settings("caption", "image")


def write_tar(path, files, form=tarfile.PAX_FORMAT, time=1.5):
    with tarfile.open(path, "w", format=form) as tar:
        for n, (name, data) in enumerate(files):
            info = tarfile.TarInfo(name)
            # Times of different lengths, as the webdataset library writes them.
            info.size, info.mtime = len(data), time + n / 7 if form == tarfile.PAX_FORMAT else 0
            tar.addfile(info, io.BytesIO(data))


def random_files(rng, number):
    """Files of records with everything that occurs: each key once in most cases."""
    files = []
    for i in range(number):
        key = f"{rng.choice(['', 'd/', 'd/é/', 'x' * 120 + '/'])}{rng.randrange(60):03d}"
        parts = [(f"{key}.{rng.choice(['jpg', 'JPG', 'png', 'webp'])}", rng.randbytes(200 + i))]
        texts = ["a dog", " two\nlines ", "ünï", "", "x" * 9000, "\ufeffmark", '"quoted" \\ text']
        if rng.random() < 0.8:
            parts.append((f"{key}.{rng.choice(['txt', 'TXT'])}", rng.choice(texts).encode()))
        if rng.random() < 0.6:
            captions = [rng.choice(texts) for _ in range(rng.randrange(4))]
            value = {"caption": captions} if rng.random() < 0.7 else {"caption": "json", "a": 1}
            parts.append((f"{key}.json", json.dumps(value).encode()))
        if rng.random() < 0.1:
            parts = parts[1:]
        rng.shuffle(parts)
        files += parts
    for _ in range(3):  # files of a record need not follow each other
        files.append(files.pop(rng.randrange(len(files))))
    return files


def reference(paths):
    """[(key, captions, image)] and the keys of bad records, by tarfile and dicts."""
    records, bad, seen = [], [], set()
    for path in paths:
        samples = {}
        with tarfile.open(path) as tar:
            for member in tar:
                folder, slash, base = member.name.rpartition("/")
                stem, _, extension = base.partition(".")
                files, extension = samples.setdefault(folder + slash + stem, {}), extension.lower()
                if extension in files:
                    bad += [folder + slash + stem] if extension not in ("txt", "json") else []
                else:
                    files[extension] = tar.extractfile(member).read()
        for key, files in samples.items():
            image = next((files[e] for e in ("jpg", "png", "webp") if e in files), None)
            captions = [files.get("txt", b"").decode("utf-8-sig").strip()]
            if not captions[0] and "json" in files:
                value = json.loads(files["json"])["caption"]
                captions = [x.strip() for x in (value if isinstance(value, list) else [value])]
            captions = [caption for caption in captions if caption]
            if image is None or not captions or key in seen:
                bad.append(key)
            else:
                seen.add(key)
                records.append((key, captions, image))
    return records, sorted(bad)


@pytest.fixture
def shards(tmp_path):
    rng = random.Random(0)
    for s in range(4):
        form = tarfile.GNU_FORMAT if s == 3 else tarfile.PAX_FORMAT
        write_tar(tmp_path / f"{s}.tar", random_files(rng, 40), form)
    return tmp_path


def opened(folder, cache="cache"):
    return open_shards(
        str(folder / "*.tar"),
        multiple_captions=False,
        max_bad_records=1.0,
        data_dir=folder / cache,
        workdir=folder,
        check_media=False,
    )


def contents(source):
    examples = [source[i] for i in range(len(source))]
    return [(example["key"], example["captions"], example["image"]) for example in examples]


def test_records_are_those_of_a_slow_reference(shards, monkeypatch):
    records, bad = reference(sorted(shards.glob("*.tar")))
    for collide in (False, True):  # also where all keys have the same hash
        source = opened(shards, f"cache{collide}")
        assert contents(source) == records
        assert sorted(row["key"] for row in jsonl.read(shards / "bad_records.jsonl")) == bad
        monkeypatch.setattr(index, "_hash", lambda key: bytes(8))
    assert len(records) > 40 and len(bad) > 20


def test_equal_hashes_are_found_part_by_part(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 200, np.uint64)
    hashes[[3, 150, 199]] = hashes[7]
    hashes[20] = hashes[21] = 2**64 - 1
    with (tmp_path / "hashes").open("w+b") as file:
        file.write(hashes.tobytes())
        for size in (8, 64, 1000):
            monkeypatch.setattr(merged, "_SORTED", size)
            assert merged._equal_hashes(file, 200).tolist() == [3, 7, 20, 21, 150, 199]


def test_nothing_is_built_twice_and_a_change_is_noticed(shards, monkeypatch):
    built, work = [], build.index_shard

    def noted(read, window, size, shard, *settings):
        if len(built) == stop:
            raise KeyboardInterrupt
        built.append(shard)
        return work(read, window, size, shard, *settings)

    monkeypatch.setattr(build, "index_shard", noted)
    stop = 2
    with pytest.raises(KeyboardInterrupt):
        opened(shards)
    stop = -1
    first = contents(opened(shards))  # goes on
    assert built == ["0.tar", "1.tar", "2.tar", "3.tar"]
    before = opened(shards)
    again = pickle.loads(pickle.dumps(before))  # for a worker process: without the records
    assert contents(again) == first and len(pickle.dumps(before)) < 3000
    cut = next((shards / "cache" / "shard_index").glob("*.merged"))
    whole = cut.read_bytes()
    for damaged in (whole[:-100], whole.replace(b'"bad"', b'"bat"', 1), b"[" * 9999):
        cut.write_bytes(damaged)
        assert contents(opened(shards)) == first and len(built) == 4  # merged again, not indexed
    unread = opened(shards)
    write_tar(shards / "1.tar", random_files(random.Random(9), 30))
    with pytest.raises(OSError, match=r"has been changed since it was indexed.*1\.tar"):
        contents(before)
    source = opened(shards)
    assert built[4:] == ["1.tar"]
    assert contents(source) == reference(sorted(shards.glob("*.tar")))[0]
    with pytest.raises(OSError, match=r"1\.tar has been indexed again"):
        [unread.meta(i) for i in range(len(unread))]
    os.utime(shards / "2.tar", ns=(0, 7))  # of the same size
    with pytest.raises(OSError, match=r"has been changed since it was indexed.*2\.tar"):
        contents(source)
    assert contents(opened(shards)) and built[5:] == ["2.tar"]


def test_processes_write_the_same_cache(shards, monkeypatch):
    pattern, alone = str(shards / "*.tar"), shards / "alone"
    build.build(pattern, find_shards(pattern), SETTINGS, alone)
    monkeypatch.setattr(build, "PATIENCE", -1.0)  # other processes at once
    both = shards / "both"
    arguments = (pattern, find_shards(pattern), SETTINGS, both, (0, 1))
    other = threading.Thread(target=build.build, args=arguments, kwargs={"processes": 1})
    other.start()
    done = []
    build.build(*arguments, processes=2, advance=lambda: done.append(1))
    other.join()
    assert len(done) + len(list(both.glob("*.index"))) >= 4
    files = {path.name: path.read_bytes() for path in alone.iterdir()}
    assert files == {path.name: path.read_bytes() for path in both.iterdir()} and len(files) == 4
    (shards / "1.tar").write_bytes(b"no tar file")
    with pytest.raises(ValueError, match=r"^The shard .*1\.tar cannot be read \(it is cut off"):
        arguments = (pattern, find_shards(pattern), SETTINGS, shards / "bad")
        build.build(*arguments, processes=2, advance=lambda: None)
    parts = shards / "parts"  # of the hosts of a run
    write_tar(shards / "1.tar", [])
    for i in range(3):
        build.build(pattern, find_shards(pattern), SETTINGS, parts, (i, 3), processes=1)
        assert len(list(parts.iterdir())) == (2, 3, 4)[i]


def test_media_that_shards_do_not_have_are_refused_by_the_command():
    done = commands.run("-m", "mmjax.data.shards", "--pattern=*.tar", "--media=audio")
    assert done.returncode == 2 and "--media: invalid choice: 'audio'" in done.stderr


def test_a_window_that_the_command_cannot_index_is_refused(shards):
    pattern = f"--pattern={shards / '*.tar'}"
    for more, said in (
        (("--window=-1",), "--window is -1: use a number of shards"),
        (("--window=2", "--processes=3"), "--processes is 3, and with --window one process"),
    ):
        done = commands.run("-m", "mmjax.data.shards", pattern, *more)
        assert done.returncode == 2 and said in done.stderr


def test_the_command_says_how_many_shards_it_indexed(shards):
    pattern, number = f"--pattern={shards / '*.tar'}", len(list(shards.glob("*.tar")))
    for name, more in ("part", ()), ("all", ("--window=2",)):
        cache = shards / name
        flags = (pattern, f"--cache={cache}", "--part=1/3", *more)
        done = commands.run("-m", "mmjax.data.shards", *flags)
        made = len(list(cache.glob("*.index")))
        assert done.stdout.strip() == f"indexed: {made} of {number} shards, in {cache}"


def test_each_process_of_a_run_indexes_its_part(shards, monkeypatch):
    cache = shards / "cache" / "shard_index"
    found, source = [], {"kind": "webdataset", "pattern": str(shards / "*.tar")}
    source |= {
        "data_dir": str(shards / "cache"),
        "max_bad_records": 1.0,
        "multiple_captions": False,
    }

    @contextlib.contextmanager
    def main_first(what):
        found.append(len(list(cache.iterdir())))
        yield

    monkeypatch.setattr(experiment.distributed, "main_first", main_first)
    monkeypatch.setattr(experiment.jax, "process_count", lambda: 3)
    monkeypatch.setattr(experiment.jax, "process_index", lambda: 0)
    data = {"train": {"kind": "mixture", "parts": {"a": {"source": source}}}}
    opened = experiment.open_training(data, shards)
    assert found == [2] and len(opened) == len(reference(sorted(shards.glob("*.tar")))[0])


def test_a_record_takes_12_bytes(tmp_path):
    """Of many records; the texts are read from the indexes of single shards."""
    number = 50_000
    arrays = {name: np.arange(number, dtype=np.uint32) for name in ("block", "size", "text")}
    arrays["hash"] = np.random.default_rng(0).integers(0, 2**64, number, np.uint64)
    arrays["texts"] = np.frombuffer(b'["k","c"]\n', np.uint8)
    (tmp_path / "0.tar").touch()
    shards = find_shards(str(tmp_path / "0.tar"))
    facts = {"state": build.index_state(shards[0], SETTINGS), "bad": [], "skipped": {}}
    path = build.index_file(tmp_path, shards[0], SETTINGS)
    columns.write(path, facts | {"several": [0, ""]}, arrays)
    found = merged.open_merged("x", shards, SETTINGS, tmp_path)
    assert len(found) == number and found.text(0) == ("k", ["c"])
    assert found.place(49_999) == (shards[0], 49_999 * 512, 49_999)
    (file,) = tmp_path.glob("*.merged")
    assert file.stat().st_size < 12.1 * number
