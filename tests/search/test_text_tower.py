"""A query without JAX: the recorded text tower, the lookup of files, and the search in NumPy."""

import json
import math
import subprocess
import sys

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_index import MODEL, asked, draw

from mmjax.embedder import open_embedder
from mmjax.search import __main__ as command
from mmjax.search import array_program, lookup, quick, storage, text_tower
from mmjax.search.index import Index
from mmjax.search.record import NotRecordableError, record
from mmjax.search.top_k import Gallery
from mmjax.workdir import jsonl

TEXTS = ("a", "a dog on the beach", "Ein Täfelchen, " * 60, "")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMJAX_DATA_DIR", str(tmp_path / "cache"))


def run(folder, function, given, **inputs):
    """Recorded, and run by NumPy."""
    folder.mkdir(exist_ok=True)
    array_program.write(folder, *record(function, given, **inputs))
    return array_program.Program(folder)


def test_operations_are_those_of_jax(tmp_path):
    """One function with most of them: every result beside JAX's."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(5, 6)).astype(np.float32)
    table = rng.normal(size=(9, 6)).astype(np.float32)

    def function(given, batch):
        ids, mask = batch["ids"], batch["mask"]
        x = jnp.take(given["table"], ids, axis=0)  # [2, 4, 6]
        y = jax.nn.gelu(x, approximate=False) + jax.nn.gelu(x, approximate=True)
        y = jnp.einsum("bld,ed->ble", y, given["w"]) / jnp.float32(3) - jax.nn.sigmoid(x[..., :5])
        scores = jnp.einsum("bqd,bkd->bqk", y, y)
        scores = jnp.where(mask[:, None], scores, -jnp.inf)
        y = jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(scores), y) * jax.lax.rsqrt(
            jnp.square(y).mean() + 1
        )
        last = jnp.argmax(ids, axis=1)
        ends = jnp.take_along_axis(y, last[:, None, None], axis=1)[:, 0]
        ends += jnp.cumsum(y, axis=1)[:, -1] + y.max(axis=1) + jnp.tanh(y[:, 1]) ** 3
        parts = jnp.split(jnp.concatenate([ends, -ends], axis=1), 2, axis=1)
        total = parts[0] + jnp.exp(parts[1]) + jnp.log1p(jnp.abs(parts[0])) + jnp.arange(5.0)[None]
        total = jax.lax.dynamic_slice(total, (jnp.int32(0), ids[0, 0] * 0), (2, 5))
        return total / jnp.linalg.norm(total, axis=1, keepdims=True)

    ids = np.asarray([[1, 8, 3, 0], [2, 2, 7, 5]], np.int32)
    mask = np.asarray([[True, True, False, True], [True] * 4])
    given = {"w": w, "table": table, "unused": np.ones(10**6, np.float32)}
    program = run(tmp_path / "one", function, given, ids=ids, mask=mask)
    assert (tmp_path / "one" / array_program.ARRAYS).stat().st_size < 2000
    for shift in range(3):
        batch = {"ids": (ids + shift) % 9, "mask": np.roll(mask, shift, axis=1)}
        want = np.asarray(jax.jit(function)(given, batch))
        got = program(**batch)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, atol=2e-6)


def test_the_error_function_to_float32():
    x = np.linspace(-6, 6, 4001, dtype=np.float32)
    want = [math.erf(float(v)) for v in x]
    np.testing.assert_allclose(array_program.OPERATIONS["erf"](x), want, atol=5e-7)


def test_what_numpy_lacks_is_named():
    with pytest.raises(NotRecordableError, match="'sort' is not among"):
        record(lambda given, batch: jnp.sort(batch["x"]), {}, x=np.ones(3, np.float32))
    with pytest.raises(NotRecordableError, match="gives bfloat16"):
        record(lambda given, batch: batch["x"].astype("bfloat16"), {}, x=np.ones(3, np.float32))
    with pytest.raises(NotRecordableError, match="'while'"):
        record(
            lambda given, batch: jax.lax.while_loop(
                lambda x: x[0] < 9, lambda x: x + 1, batch["x"]
            ),
            {},
            x=np.ones(3, np.float32),
        )


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_is_unrolled(tmp_path, reverse):
    given = {"w": np.arange(6, dtype=np.float32).reshape(3, 2), "b": np.float32(0.5)}

    def function(given, batch):
        def step(carry, w):
            return jnp.tanh(carry * w + given["b"]), carry + w

        last, every = jax.lax.scan(step, batch["x"], given["w"], reverse=reverse)
        return last + every.sum(0) * every[1]

    x = np.asarray([0.3, -2.0], np.float32)
    want = function(given, {"x": x})
    np.testing.assert_allclose(run(tmp_path, function, given, x=x)(x=x), want, atol=1e-6)


def test_a_recorded_tower_gives_the_vectors_of_the_model(monkeypatch):
    embedder = open_embedder(MODEL, sizes=(1,))
    assert text_tower.find(embedder.fingerprint) is None
    assert text_tower.save(embedder) and text_tower.save(embedder)
    tower = text_tower.find(embedder.fingerprint)
    for text in TEXTS:
        np.testing.assert_allclose(tower.embed(text), embedder.texts([text])[0], atol=1e-6)
    folder = text_tower.folder_of(embedder.fingerprint)
    (folder / text_tower.ABOUT).unlink()  # damaged, or half deleted
    assert text_tower.find(embedder.fingerprint) is None
    monkeypatch.setattr(text_tower, "TOLERANCE", 0.0)  # one that differs is not kept
    assert not text_tower.save(embedder) and text_tower.find(embedder.fingerprint) is None


@pytest.mark.parametrize("kind", storage.KINDS)
def test_the_search_is_that_of_the_gallery(kind, monkeypatch):
    monkeypatch.setattr(quick, "CHUNK", 64)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 24))
    vectors[200:] = vectors[:100]  # ties
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stored, scales = storage.encode(vectors, kind)
    for query in (vectors[7], vectors[150], vectors[3]):
        query = query.astype(np.float32)
        scores, rows = quick.best(stored, scales, query, np.arange(300), 9)
        want_scores, want_rows = Gallery(stored, scales).search(query[None], 9)
        np.testing.assert_array_equal(rows, want_rows[0])
        np.testing.assert_array_equal(scores, want_scores[0])
    _, rows = quick.best(stored, scales, vectors[7].astype(np.float32), np.arange(50, 300), 400)
    assert len(rows) == 250 and rows[0] == 207


def test_every_float16_is_widened_exactly():
    bits = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    values = bits[np.isfinite(bits)]
    for sign in (1, -1):
        found = quick._products(values[:, None], np.array([sign], np.float32))
        np.testing.assert_array_equal(found, sign * values.astype(np.float32))


def test_a_query_answers_as_the_model_does_and_imports_no_jax(tmp_path, capsys):
    photos, folder = tmp_path / "photos", tmp_path / "index"
    for i in range(4):
        draw(photos / f"{i}.png", i)
    (photos / "copy.png").write_bytes((photos / "2.png").read_bytes())
    command.index(asked(photos, model=MODEL, index=folder))
    query = asked("a red bus", index=folder, k=3, json=True)
    query.action = "query"
    capsys.readouterr()
    command.query(query)
    want = capsys.readouterr().out
    code = (
        "import sys; from mmjax.search import quick; import argparse; "
        f"done = quick.answer(argparse.Namespace(**{vars(query)!r})); "
        "assert done and not {'jax', 'flax', 'orbax'} & set(sys.modules)"
    )
    code = code.replace(repr(folder), repr(str(folder)))
    # Not by commands.run, whose processes start with JAX.
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=commands.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, wanted = ([json.loads(x) for x in out.splitlines()] for out in (done.stdout, want))
    scores, wanted_scores = ([row.pop("score") for row in rows] for rows in (found, wanted))
    assert found == wanted and len(found) == 3
    np.testing.assert_allclose(scores, wanted_scores, atol=1e-6)

    # A file is gone, with its last line of the list: the lookup is of another list, until `index`.
    jsonl.append(folder / "files-0.jsonl", [{"path": "3.png", "gone": True}])
    assert not quick.answer(query)
    lookup.write(folder, 0)
    assert len(list(folder.glob("rows-*.npy"))) == 1 and quick.answer(query)
    assert "3.png" not in capsys.readouterr().out
    for more in ({"image": "x.png"}, {"model": MODEL}, {"approximate": True}, {"k": 0}):
        assert not quick.answer(asked("a", **{"index": folder, **more}))
    rows = (folder / "vectors-0.bin").read_bytes()
    (folder / "vectors-0.bin").write_bytes(rows[: len(rows) // 2])  # damaged: for `Index` to say
    assert not quick.answer(query)
    (folder / "vectors-0.bin").write_bytes(rows)
    assert lookup.Lookup(folder, 0).rows().tolist() == sorted(
        {f.row for f in Index(folder).files.values()}
    )
