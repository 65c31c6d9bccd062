"""The approximate index beside the exact one: what it finds, and when it is refused."""

import importlib.util
import json

import numpy as np
import pytest
from tiny_index import MODEL, asked, draw

from mmjax.search import __main__ as command
from mmjax.search import approximate
from mmjax.search.index import File, Index, Writer, create

needs_usearch = pytest.mark.skipif(
    importlib.util.find_spec("usearch") is None,
    reason="needs usearch: pip install -e '.[approximate]'",
)
DIM = 8
RNG = np.random.default_rng(0)


def unit(count):
    found = RNG.standard_normal((count, DIM)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def add(writer, vectors):
    names = range(writer.rows, writer.rows + len(vectors))
    writer.append(vectors, [File(f"{n}", 1, 1, f"hash{n}", n) for n in names])


@pytest.fixture(params=["float32", "int8"])
def writer(tmp_path, request):
    create(tmp_path / "index", tmp_path, "model", "fingerprint", DIM, request.param)
    return Writer(tmp_path / "index")


@needs_usearch
def test_it_finds_nearly_what_the_exact_index_finds_with_the_same_scores(writer):
    add(writer, unit(3000))
    approximate.build(Index(writer.folder))
    index, queries = Index(writer.folder), unit(50)
    exact, found = index.search(queries, 10), index.search(queries, 10, approximate.Graph(index))
    shared = 0
    for wanted, hits in zip(exact, found):
        scores = {hit.sha256: hit.score for hit in wanted}
        shared += sum(hit.sha256 in scores for hit in hits)
        for hit in hits:
            assert hit.score == pytest.approx(scores.get(hit.sha256, hit.score), abs=1e-6)
        assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
    assert shared > 0.95 * 500
    (every,) = index.search(queries[:1], 10_000, approximate.Graph(index))
    assert 2900 < len(every) == len({hit.sha256 for hit in every}) <= 3000


@needs_usearch
def test_it_grows_and_an_index_that_has_changed_since_refuses_it(writer):
    with pytest.raises(ValueError, match="index' has none: run `python -m mmjax.search index"):
        approximate.Graph(Index(writer.folder))
    add(writer, unit(20))
    approximate.build(Index(writer.folder))
    add(writer, unit(10))
    with pytest.raises(ValueError, match="has changed since its approximate index was made: run"):
        approximate.Graph(Index(writer.folder))
    approximate.build(Index(writer.folder))
    index = Index(writer.folder)
    stored = approximate._vectors(index, np.arange(30))
    hits = index.search(stored, 1, approximate.Graph(index))
    assert [h.paths for (h,) in hits] == [[str(n)] for n in range(30)]
    writer.remove(["4"])
    # Its row is still there, and no image.
    hits = Index(writer.folder).search(stored[4:5], 30, approximate.Graph(Index(writer.folder)))
    assert len(hits[0]) == 29
    writer.compact()
    with pytest.raises(ValueError, match="has changed since"):
        approximate.Graph(Index(writer.folder))
    approximate.build(Index(writer.folder))
    names = [p.name for p in writer.folder.glob("approximate*")]
    assert names == ["approximate-1-29.usearch"]
    index = Index(writer.folder)
    (hits,) = index.search(stored[5:6], 1, approximate.Graph(index))
    assert hits[0].paths == ["5"]


@needs_usearch
def test_the_command_makes_and_asks_it(tmp_path, capsys):
    root, folder = tmp_path / "pictures", tmp_path / "index"
    for i in range(6):
        draw(root / f"{i}.png", i)
    given = {"index": folder, "model": MODEL, "approximate": True}
    command.index(asked(root, **given))
    capsys.readouterr()
    command.query(asked(None, image=root / "3.png", json=True, k=2, **given))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["path"] == str(root / "3.png") and len(lines) == 2


def test_without_the_package_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "usearch" else found(name)
    )
    draw(tmp_path / "pictures" / "1.png", 1)
    given = {"index": tmp_path / "index", "model": MODEL, "approximate": True}
    with pytest.raises(ValueError, match=r"usearch is missing: install it with pip install -e"):
        command.index(asked(tmp_path / "pictures", **given))
    assert not (tmp_path / "index").exists()
