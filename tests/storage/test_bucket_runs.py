"""Whole runs in a bucket: killed in the middle of a save, resumed, evaluated, and refused."""

import json
import time

import buckets
import commands
import numpy as np
import pytest
from runs import TRAIN, refused, state_of
from tiny_clip import write_folder

from mmjax import storage
from mmjax.storage import mirror

STEPS = 6


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images, and the run on a disk that nothing has disturbed."""
    place = tmp_path_factory.mktemp("bucket_runs")
    write_folder(place / "images")
    done = commands.run(*train(place, place / "undisturbed", "--config.evals={}"))
    assert done.returncode == 0, done.stderr
    return place


def train(place, workdir, *more):
    root = f"--config.data.train.root={place / 'images'}"
    evals = f"--config.evals.health.source.root={place / 'images'}"
    own = [f"--config.total_steps={STEPS}", "--config.evals.all=None", root, evals]
    return [*TRAIN, f"--workdir={workdir}", *own, *more]


def opened(scheme):
    return getattr(buckets, scheme)(), f"{scheme}://{buckets.BUCKET}/run"


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_run_killed_in_a_save_resumes_to_the_same_parameters(place, scheme, tmp_path):
    proxy, url = opened(scheme)
    held = buckets.Fault(r"^P(OST|UT) .*checkpoints(%2F|/)4\b.*manifest", seconds=60)
    with proxy.failing(held):
        run = commands.start(*train(place, url))
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
        done = commands.run(*train(place, url))
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
    proxy, url = opened("gs")
    done = commands.run("-m", "mmjax.evaluate", f"--workdir={url}", "--step=4")
    assert done.returncode == 0, done.stderr
    assert f"report: {url}/reports/step-4-" in done.stdout
    assert storage.glob(f"{url}/reports/step-4-*.html")
    import mmjax

    assert f"{url}: step {STEPS}" in mmjax.load(url).report


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
