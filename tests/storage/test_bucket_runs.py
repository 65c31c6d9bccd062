"""Whole runs in a bucket: killed in the middle of a save, resumed, evaluated, and refused."""

import io
import json
import tarfile
import time

import buckets
import commands
import numpy as np
import pytest
from runs import TRAIN, ends, free_port, refused, state_of
from tiny_clip import write_folder

from mmjax import storage
from mmjax.storage import mirror

STEPS = 6


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two shards, and the run on a disk that nothing has disturbed."""
    place = tmp_path_factory.mktemp("bucket_runs")
    captions = write_folder(place / "images")
    for n in range(2):
        with tarfile.open(place / f"{n}.tar", "w") as tar:
            for i in range(n, len(captions), 2):
                image = (place / "images" / f"{i:03d}.png").read_bytes()
                for suffix, data in (("png", image), ("txt", captions[i].encode())):
                    member = tarfile.TarInfo(f"{i:03d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    done = commands.run(*train(place, place / "undisturbed", "--config.evals={}"))
    assert done.returncode == 0, done.stderr
    return place


def train(data, workdir, *more, steps=STEPS):
    source = {"kind": "webdataset", "pattern": f"{data}/{{0..1}}.tar"}
    evals = {"health": {"kind": "embedding_health", "source": source, "transform": "decode"}}
    own = [f"--config.data.train={source}", f"--config.evals={evals}"]
    return [*TRAIN, f"--workdir={workdir}", f"--config.total_steps={steps}", *own, *more]


def opened(scheme, place):
    """(proxy, the URL of the shards, that of a run)."""
    proxy, url = getattr(buckets, scheme)(), f"{scheme}://{buckets.BUCKET}"
    for name in ("0.tar", "1.tar"):
        storage.write(f"{url}/shards/{name}", (place / name).read_bytes())
    return proxy, f"{url}/shards", f"{url}/run"


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_run_killed_in_a_save_resumes_to_the_same_parameters(place, scheme):
    """Its shards are in the bucket too."""
    proxy, shards, url = opened(scheme, place)
    held = buckets.Fault(r"^P(OST|UT) .*checkpoints(%2F|/)4\b.*manifest", held=True)
    with proxy.failing(held):
        run = commands.start(*train(shards, url))
        while proxy.faults and run.poll() is None:
            time.sleep(0.05)
        run.kill()
        assert run.wait() == -9, run.said("stderr")
    stored = storage.listing(f"{url}/checkpoints")
    assert any("/4" in name for name in stored)  # a part of it
    with proxy.failing(
        buckets.Fault(r"^GET .*checkpoints(%2F|/)2\b.*(%2F|/)d(%2F|/)", status=503),
        buckets.Fault(r"^GET .*checkpoints(%2F|/)2\b.*(%2F|/)manifest"),
        buckets.Fault(r"^P(OST|UT) .*checkpoints(%2F|/)6\b.*manifest", lost_answer=True),
    ):
        done = commands.run(*train(shards, url))
    assert done.returncode == 0, done.stderr
    assert f"resumed at step 2 of {STEPS}, {url}" in done.stdout
    assert f"report: {url}/report.html" in done.stdout

    with mirror.opened(url) as local:
        rows = [json.loads(line) for line in (local / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, STEPS + 1))
        assert "health" in (local / "report.html").read_text()
        assert (local / "tokenizer" / "tokenizer.json").exists()
        assert json.loads((local / "run.json").read_text())["results"]["step"] == STEPS
        assert not (local / ".lock").exists()
        found = state_of(url if scheme == "gs" else local, STEPS)
    wanted = state_of(place / "undisturbed", STEPS)
    assert wanted.keys() == found.keys()
    assert all(np.array_equal(found[name], x) for name, x in wanted.items())
    assert not local.exists()


def test_a_run_in_a_bucket_is_evaluated_and_loaded(place):
    _, _, url = opened("gs", place)
    done = commands.run("-m", "mmjax.evaluate", f"--workdir={url}", "--step=4")
    assert done.returncode == 0, done.stderr
    assert f"report: {url}/reports/step-4-" in done.stdout
    assert storage.glob(f"{url}/reports/step-4-*.html")
    import mmjax

    assert f"{url}: step {STEPS}" in mmjax.load(url).report


def test_two_processes_write_one_run_and_resume_it(place):
    """Each has a mirror of its own: what process 0 has written reaches the other through it."""
    buckets.gs()
    url = f"gs://{buckets.BUCKET}/two"
    for steps in (3, STEPS):
        flags = [f"--coordinator=localhost:{free_port()}", "--num_processes=2"]
        words = train(place, url, *flags, "--allow_change=total_steps", steps=steps)
        both = [commands.start(*words, f"--process_id={i}") for i in range(2)]
        for code, stdout, stderr in ends(both):
            assert code == 0, stdout + stderr
        said = both[0].said()
        assert f"report: {url}/report.html" in said
    assert f"resumed at step 3 of {STEPS}, {url}" in said
    names = {name.removeprefix(f"{url}/").split("/")[0] for name in storage.listing(url)}
    assert names >= {"checkpoints", "metrics.jsonl", "run.json", "tokenizer", "report.html"}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"gs://{buckets.PRIVATE}/run", ["no permission", f"gs://{buckets.PRIVATE}"]),
        ("gs://missing/run", ["the bucket gs://missing does not exist"]),
        ("az://bucket/run", ["begin with gs:// and s3://"]),
    ],
)
def test_a_bucket_that_cannot_be_used_is_one_sentence(place, url, words):
    buckets.gs()
    refused(commands.run(*train(place, url)), *words)
