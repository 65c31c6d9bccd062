"""CapFilt with a captioner and a filter that are known functions, whole and interrupted."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.capfilt import CANDIDATES, Settings, _identity, bootstrap, make_captioner
from experiments.capfilt_report import detection, write_report
from mmjax import pretrained
from mmjax.data.open_source import open_source
from mmjax.data.source import Source
from mmjax.data.sources.swapped import open_swapped
from mmjax.workdir import jsonl

GOLDEN = Path(__file__).parents[1] / "golden"


class Shades(Source):
    """Gray images whose captions name their brightness."""

    class_names, name = None, "shades"

    def __len__(self):
        return 10

    def __getitem__(self, i):
        if i == 7:
            raise ValueError("the image is damaged")
        return {"image": np.full((8, 8, 3), 20 * i, np.uint8), "captions": [f"shade {i}"]}

    def meta(self, i):
        return {"captions": [f"shade {i}"]}


def noisy():
    return open_swapped(Shades(), 0.4, seed=1)


def shade(image):
    return int(image[0, 0, 0]) // 20


def captioner(images, seed):
    """Right for even shades; the seed is part of it, so that another batching would show."""
    return [f"made {shade(x) if shade(x) % 2 == 0 else 99} {seed}" for x in images]


def filter_(images, texts):
    right = [int(t.split()[1]) == shade(x) for x, t in zip(images, texts, strict=True)]
    return np.where(right, 0.9, 0.2).astype(np.float32)


def run(target, captioner=captioner, filter_=filter_, **models):
    settings = Settings(batch_size=3, seed=5)
    models = {"models": models}
    bootstrap(
        noisy, target, captioner, filter_, settings, models=models, shard_records=4,
        max_bad_records=1,
    )  # fmt: skip
    return read(target)


def read(target):
    source = open_source({"kind": "array_record", "root": str(target)})
    found = {shade(e["image"]): e["captions"] for e in (source[i] for i in range(len(source)))}
    rows = [row for path in sorted(target.glob(f"*{CANDIDATES}")) for row in jsonl.read(path)]
    return found, rows


def expected(captioner, filter_):
    """The set by a loop over single examples."""
    source, found = noisy(), {}
    for i in range(10):
        if i == 7:
            continue
        example = source[i]
        first = i // 4 * 4 + i % 4 // 3 * 3  # of its batch of 3 in its shard of 4
        texts = list(example["captions"])
        texts += captioner([example["image"]], 5 + first) if captioner else []
        if filter_:
            texts = [t for t in texts if filter_([example["image"]], [t])[0] >= 0.5]
        if texts:
            found[i] = texts
    return found


@pytest.mark.parametrize("captions", [captioner, None])
@pytest.mark.parametrize("filters", [filter_, None])
def test_the_set_is_that_of_a_loop(tmp_path, captions, filters):
    if captions is None and filters is None:
        with pytest.raises(ValueError, match="Neither --captioner nor --filter"):
            run(tmp_path / "set", None, None)
        return
    found, rows = run(tmp_path / "set", captions, filters)
    assert found == expected(captions, filters)
    assert len(rows) == 9 * (2 if captions else 1)
    bad = (tmp_path / "set" / "bad_records.jsonl").read_text()
    assert "damaged" in bad


class Killed(Exception):
    pass


def test_an_interrupted_run_continues_to_the_same_set(tmp_path):
    run(tmp_path / "whole")
    calls = []

    def dies(images, seed):
        calls.append(seed)
        if len(calls) == 3:  # in the second shard
            raise Killed
        return captioner(images, seed)

    with pytest.raises(Killed):
        run(tmp_path / "set", dies)
    before = len(calls)
    run(tmp_path / "set", lambda images, seed: (calls.append(seed), captioner(images, seed))[1])
    assert calls[before] == 5 + 4  # the first shard is not computed again
    for path in (tmp_path / "whole").glob("*jsonl"):
        assert path.read_text() == (tmp_path / "set" / path.name).read_text()
    assert read(tmp_path / "set") == read(tmp_path / "whole")


def test_another_model_does_not_continue_a_set(tmp_path):
    run(tmp_path / "set", captioner=None, model="a")
    with pytest.raises(ValueError, match="models = .*'a'.* and now it is"):
        run(tmp_path / "set", captioner=None, model="b")


def test_a_model_is_known_by_its_path_and_its_parameters():
    one, other = (SimpleNamespace(params={"w": np.full(3, x, np.float32)}) for x in (1, 2))
    assert _identity("run", one) == _identity("run", one) != _identity("run", other)


def test_a_model_that_answers_questions_is_no_captioner():
    loaded = pretrained.load(GOLDEN / "blip_vqa")
    with pytest.raises(ValueError, match="answers questions and generates no captions"):
        make_captioner(loaded, 4, {})


def test_what_is_out_of_range_is_refused():
    with pytest.raises(ValueError, match="--threshold is 1.5"):
        Settings(threshold=1.5)
    with pytest.raises(ValueError, match="--batch_size is 0"):
        Settings(batch_size=0)


def test_the_report_shows_each_kind_and_how_swaps_are_found(tmp_path):
    _, rows = run(tmp_path / "set")
    found = detection(rows)
    assert found == {"area": 1.0, "removed_of_swapped": 1.0, "removed_of_true": 0.0}
    assert detection([r for r in rows if r["kind"] == "generated"]) == {}
    tied = [{**r, "score": 0.5, "kept": True} for r in rows if r["kind"] == "original"]
    assert detection(tied)["area"] == 0.5
    write_report(tmp_path / "report.html", noisy(), rows, {"threshold": 0.5})
    page = (tmp_path / "report.html").read_text()
    for title in ("Original captions, kept", "Generated captions, removed", "Probability of a"):
        assert title in page
    assert json.dumps(rows)  # plain values
