"""Retrieval metrics against slow loops, closed forms and properties."""

import io
import itertools
import tarfile

import numpy as np
import pytest
from fake_runner import FakeRunner
from flowers import picture
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data.open_source import open_source
from mmjax.data.pipeline import eval_batches
from mmjax.data.source import Source
from mmjax.data.transforms.parse import parse
from mmjax.evals import rank_counts
from mmjax.evals.evaluators import make_evaluators
from mmjax.evals.retrieval import (
    caption_ids,
    chance_metrics,
    relevant_images,
    retrieval_metrics,
)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def one_direction(scores, relevant):
    """Every metric by loops over plain lists; `scores[q][g]`, `relevant[q]` a set."""
    ranks, precisions = [], []
    for q in range(len(scores)):
        # Irrelevant first among equals: the pessimistic order.
        order = sorted(range(len(scores[q])), key=lambda g: (-scores[q][g], g in relevant[q]))
        hits = [place for place, g in enumerate(order, start=1) if g in relevant[q]]
        ranks.append(hits[0])
        precisions.append(sum(n / place for n, place in enumerate(hits, start=1)) / len(hits))
    middle = sorted(ranks)
    half = len(middle) // 2
    return {
        "recall@1": sum(r <= 1 for r in ranks) / len(ranks),
        "recall@5": sum(r <= 5 for r in ranks) / len(ranks),
        "recall@10": sum(r <= 10 for r in ranks) / len(ranks),
        "median_rank": middle[half] if len(middle) % 2 else (middle[half - 1] + middle[half]) / 2,
        "mrr": sum(1 / r for r in ranks) / len(ranks),
        "map": sum(precisions) / len(precisions),
    }


def slow_retrieval(image, text, index, ids):
    scores = [[float(np.dot(i, t)) for t in text] for i in image]
    by_text = [
        {int(index[n]) for n in range(len(text)) if ids[n] == ids[m]} for m in range(len(text))
    ]
    by_image = [{m for m in range(len(text)) if i in by_text[m]} for i in range(len(image))]
    both = {
        "image_to_text": one_direction(scores, by_image),
        "text_to_image": one_direction([list(column) for column in zip(*scores)], by_text),
    }
    return {f"{d}/{name}": value for d, metrics in both.items() for name, value in metrics.items()}


@pytest.mark.parametrize("seed", range(4))
def test_equals_slow_loops_with_many_captions_and_shared_texts(seed, monkeypatch):
    for name, size in {"COLUMNS": 16, "PIECE": 3, "FEW": seed}.items():
        monkeypatch.setattr(rank_counts, name, size)
    rng = np.random.default_rng(seed)
    images, captions = 17, 40
    index = np.concatenate([np.arange(images), rng.integers(0, images, captions - images)])
    ids = rng.integers(0, 25, captions)
    # Integer coordinates give exact scores, and many exact ties.
    image = rng.integers(-2, 3, (images, 4)).astype(np.float32)
    text = rng.integers(-2, 3, (captions, 4)).astype(np.float32)
    expected = slow_retrieval(image, text, index, ids)
    got = retrieval_metrics(image, text, index, text_ids=ids, chunk_size=7)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=1e-12), name


def test_a_text_is_relevant_to_its_own_image_alone_without_text_ids():
    image = text = np.eye(3, dtype=np.float32)
    same_text = np.stack([text[0], text[0], text[2]])
    own = retrieval_metrics(image, same_text, np.arange(3))
    shared = retrieval_metrics(image, same_text, np.arange(3), text_ids=np.array([0, 0, 1]))
    # Text 1 points at image 0: wrong by its own image, right by the shared text.
    assert own["text_to_image/recall@1"] == pytest.approx(2 / 3)
    assert shared["text_to_image/recall@1"] == 1.0


@pytest.mark.parametrize("size", [11, 200, 1037])
def test_a_constant_model_finds_nothing(size):
    rng = np.random.default_rng(size)
    same = np.repeat(unit(rng.normal(size=(1, 48))).astype(np.float32), size, axis=0)
    metrics = retrieval_metrics(same, same, np.arange(size))
    for way in ("image_to_text", "text_to_image"):
        assert metrics[f"{way}/recall@10"] == 0.0
        assert metrics[f"{way}/median_rank"] == size


def test_not_a_number_is_an_error_rather_than_a_perfect_score():
    image = np.full((4, 2), np.nan, np.float32)
    with pytest.raises(ValueError, match="image_embed holds values that are not finite"):
        retrieval_metrics(image, np.ones((4, 2), np.float32), np.arange(4))


def test_an_image_without_caption_is_named():
    with pytest.raises(ValueError, match="first is image 1"):
        retrieval_metrics(np.eye(3), np.eye(3)[[0, 2]], np.array([0, 2]))


def test_random_embeddings_score_at_chance():
    rng = np.random.default_rng(0)
    images, per_image = 400, 3
    index = np.repeat(np.arange(images), per_image)
    image = unit(rng.normal(size=(images, 32))).astype(np.float32)
    text = unit(rng.normal(size=(len(index), 32))).astype(np.float32)
    metrics = retrieval_metrics(image, text, index)
    chance = chance_metrics(images, index)
    for way, queries in (("image_to_text", images), ("text_to_image", len(index))):
        # Three standard deviations of a binomial with the chance's probability.
        p = chance[f"{way}/recall@10"]
        assert metrics[f"{way}/recall@10"] == pytest.approx(
            p, abs=3 * (p * (1 - p) / queries) ** 0.5
        )
        assert metrics[f"{way}/median_rank"] == pytest.approx(
            chance[f"{way}/median_rank"], rel=0.15
        )


@pytest.mark.parametrize(
    ("images", "index", "ids"),
    [
        (5, [0, 1, 2, 3, 4], None),
        (3, [0, 0, 1, 1, 2, 2], None),
        (4, [0, 1, 2, 3, 3], [0, 0, 1, 2, 0]),
        (1, [0], None),
    ],
)
def test_chance_is_the_mean_over_all_orders(images, index, ids):
    by_text = [
        {index[n] for n in range(len(index)) if n == m or (ids and ids[n] == ids[m])}
        for m in range(len(index))
    ]
    by_image = [{m for m in range(len(index)) if i in by_text[m]} for i in range(images)]
    got = chance_metrics(images, np.array(index), None if ids is None else np.array(ids))
    for way, gallery, sets in (
        ("image_to_text", len(index), by_image),
        ("text_to_image", images, by_text),
    ):
        orders = list(itertools.permutations(range(gallery)))
        # Every query against every order, as scores that fall along the order.
        scores = [[-order.index(g) for g in range(gallery)] for order in orders for _ in sets]
        mean = one_direction(scores, [s for _ in orders for s in sets])
        for name, value in mean.items():
            if name != "median_rank":
                assert got[f"{way}/{name}"] == pytest.approx(value), (way, name)
        assert abs(got[f"{way}/median_rank"] - mean["median_rank"]) <= 0.5


@settings(max_examples=30)
@given(st.integers(2, 30), st.integers(1, 3), st.integers(1, 40), st.integers(0, 2**31))
def test_order_of_the_gallery_and_chunks_change_nothing(images, per_image, chunk, seed):
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(images), per_image)
    ids = rng.integers(0, len(index), len(index))
    image = rng.integers(-3, 4, (images, 3)).astype(np.float32)
    text = rng.integers(-3, 4, (len(index), 3)).astype(np.float32)
    plain = retrieval_metrics(image, text, index, text_ids=ids)
    new_images, new_texts = rng.permutation(images), rng.permutation(len(index))
    shuffled = retrieval_metrics(
        image[new_images],
        text[new_texts],
        np.argsort(new_images)[index[new_texts]],
        text_ids=ids[new_texts],
        chunk_size=chunk,
    )
    assert shuffled == pytest.approx(plain)
    for way in ("image_to_text", "text_to_image"):
        # What holds of any ranking.
        assert plain[f"{way}/recall@1"] <= plain[f"{way}/recall@5"] <= plain[f"{way}/recall@10"]
        assert plain[f"{way}/recall@1"] <= plain[f"{way}/mrr"] <= 1.0
        assert 0.0 < plain[f"{way}/map"] <= 1.0
        assert plain[f"{way}/median_rank"] >= 1.0


def test_caption_ids_join_texts_up_to_case_and_space():
    ids = caption_ids(["a Cat", "dog", "A  cat ", "ÉTÉ", "été"])
    assert ids.tolist() == [0, 1, 0, 2, 2]
    relevant = relevant_images(np.array([0, 1, 2, 2, 4]), ids)
    assert [r.tolist() for r in relevant] == [[0, 2], [1], [0, 2], [2, 4], [2, 4]]


TEXTS = [[f"caption {n} of image {i}" for n in range(5)] for i in range(7)]


def flickr30k(root):
    """Five rows per image; the numbers of the captions say that they belong together."""
    rows = [f"{i}.png| {n}| {text}" for i, row in enumerate(TEXTS) for n, text in enumerate(row)]
    (root / "captions.csv").write_text("\n".join(["image_name| comment_number| comment", *rows]))
    for i in range(len(TEXTS)):
        (root / f"{i}.png").write_bytes(picture((i, 0, 0)))
    return {"kind": "folder", "root": str(root)}


def flickr8k(root):
    """As Flickr30k, without the numbers."""
    config = flickr30k(root)
    text = (root / "captions.csv").read_text()
    columns = [line.split("| ") for line in text.splitlines()]
    (root / "captions.csv").write_text("\n".join(f"{c[0]},{c[2]}" for c in columns))
    return {**config, "image_column": "image_name", "multiple_captions": True}


def retrieval_shard(root):
    """A line of `key.txt` per caption."""
    with tarfile.open(root / "0.tar", "w") as tar:
        for i, row in enumerate(TEXTS):
            text = "\n".join(row).encode()
            for name, data in ((f"{i}.png", picture((i, 0, 0))), (f"{i}.txt", text)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return {"kind": "webdataset", "pattern": str(root / "0.tar"), "multiple_captions": True}


@pytest.mark.parametrize("write", [flickr30k, flickr8k, retrieval_shard])
def test_all_captions_of_an_image_reach_the_evaluator(tmp_path, monkeypatch, write):
    monkeypatch.setenv("MMJAX_DATA_DIR", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    texts = [text for row in TEXTS for text in row]
    rng = np.random.default_rng(0)
    image, text = unit(rng.normal(size=(7, 4))), unit(rng.normal(size=(35, 4)))

    class Numbers:
        def encode(self, given, length):
            return np.asarray([[texts.index(t)] for t in given]), np.ones((len(given), 1), bool)

    def embed(variables, batch):
        if "image" in batch:
            return {"image_embed": image[batch["image"][:, 0, 0, 0]].astype(np.float32)}
        return {"text_embed": text[batch["text"][:, 0]].astype(np.float32)}

    runner = FakeRunner(
        embed=embed,
        open_source=open_source,
        batches=lambda source, spec, size: eval_batches(source, parse(spec), batch_size=size),
        tokenizer=Numbers(),
        text_length=1,
    )
    config = {"kind": "retrieval", "source": write(tmp_path / "set"), "transform": "decode"}
    found = dict(make_evaluators({"name": config}, runner)["name"].run(None))
    wanted = slow_retrieval(image, text, np.repeat(np.arange(7), 5), np.arange(35))
    assert found == pytest.approx(wanted)


def test_the_nearest_items_are_ranked_again_by_matching():
    """Beside slow loops; image i is row i of its batches, text t the token t."""
    rng = np.random.default_rng(0)
    image, text = unit(rng.normal(size=(9, 4))), unit(rng.normal(size=(14, 4)))
    image, text = image.astype(np.float32), text.astype(np.float32)
    match, owner = 3 * rng.normal(size=(9, 14)), np.r_[np.arange(9), 0, 3, 3, 7, 8]
    captions = [[f"{t}" for t in np.flatnonzero(owner == i)] for i in range(9)]

    class Pairs(Source):
        class_names = None

        def __len__(self):
            return 9

        def __getitem__(self, i):
            return {"image": np.full((1, 1, 3), i, np.uint8), "captions": captions[i]}

    class Numbers:
        def encode(self, given, length):
            return np.asarray([[int(t)] for t in given]), np.ones((len(given), 1), bool)

    def embed(variables, batch):
        if "image_tokens" in batch:
            assert len(batch["text"]) == 8
            logits = match[batch["image_tokens"][:, 0, 0], batch["text"][:, 0]]
            return {"match_logits": np.stack([np.zeros(8), logits], 1)}
        if "image" in batch:
            rows = batch["image"][:, 0, 0, 0]
            return {"image_embed": image[rows], "image_tokens": rows[:, None, None]}
        return {"text_embed": text[batch["text"][:, 0]]}

    runner = FakeRunner(
        embed=embed,
        open_source=lambda config: Pairs(),
        batches=lambda source, spec, size: eval_batches(source, parse(spec), batch_size=size),
        tokenizer=Numbers(),
        text_length=1,
    )
    config = {"kind": "retrieval", "source": {}, "transform": "decode", "rerank": 4}
    found = dict(make_evaluators({"name": config}, runner)["name"].run(None))
    cosines = (image @ text.T).astype(np.float64)
    order = np.concatenate([np.flatnonzero(owner == i) for i in range(9)])
    wanted = slow_retrieval(image, text[order], owner[order], np.arange(14))
    for direction, cosine, logits in (
        ("image_to_text", cosines, match),
        ("text_to_image", cosines.T, match.T),
    ):
        scores = [
            [c + m + 100 if c in sorted(row)[-4:] else c for c, m in zip(row, more)]
            for row, more in zip(cosine.tolist(), logits.tolist())
        ]
        of_images = [set(np.flatnonzero(owner == i)) for i in range(9)]
        relevant = of_images if direction == "image_to_text" else [{i} for i in owner]
        again = one_direction(scores, relevant)
        wanted |= {f"reranked/{direction}/{name}": value for name, value in again.items()}
    assert found == pytest.approx(wanted)


def test_a_negative_number_of_reranked_items_is_refused():
    config = {"kind": "retrieval", "source": {}, "transform": "decode", "rerank": -1}
    with pytest.raises(ValueError, match="config.evals.name: rerank is -1"):
        make_evaluators({"name": config}, FakeRunner(open_source=None, batches=None))


def test_any_pair_of_modalities_of_an_example():
    """Sounds against images, beside slow loops; example 3 has no sound."""
    rng = np.random.default_rng(0)
    image, sound = (unit(rng.normal(size=(6, 4))).astype(np.float32) for _ in range(2))

    class Both(Source):
        class_names = None

        def __len__(self):
            return 6

        def __getitem__(self, i):
            return {
                "image": np.full((1, 1, 3), i, np.uint8),
                "waveform": np.full(2, i, np.float32),
                "audio_present": np.bool_(i != 3),
                "captions": [f"{i}"],
            }

    def embed(variables, batch):
        found = {}
        if "image" in batch:
            found["image_embed"] = image[batch["image"][:, 0, 0, 0]]
        if "waveform" in batch:
            found["audio_embed"] = sound[batch["waveform"][:, 0].astype(int)]
        return found

    runner = FakeRunner(
        embed=embed,
        open_source=lambda config: Both(),
        batches=lambda source, spec, size: eval_batches(source, parse(spec), batch_size=size),
        batch_size=4,
    )
    config = {"kind": "retrieval", "source": {}, "transform": "decode"}
    made = make_evaluators({"name": config | {"pair": ("audio", "image")}}, runner)["name"]
    kept = np.array([0, 1, 2, 4, 5])
    want = slow_retrieval(sound[kept], image[kept], np.arange(5), np.arange(5))
    names = {"image_to_text": "audio_to_image", "text_to_image": "image_to_audio"}
    want = {f"{names[k.split('/')[0]]}/{k.split('/')[1]}": value for k, value in want.items()}
    assert dict(made.run(None)) == pytest.approx(want | {"absent": 1.0})
    assert made.needs() == {"audio_embed": ("audio",), "image_embed": ("image",)}
    plain, spelled = (
        make_evaluators({"name": config | more}, runner)["name"].fingerprint()
        for more in ({}, {"pair": ("image", "text")})
    )
    assert plain == spelled != made.fingerprint()
    for pair in (("audio",), ("audio", "smell"), ("text", "audio"), ("image", "image")):
        with pytest.raises(ValueError, match="config.evals.name: pair is .*(two modalities|last)"):
            make_evaluators({"name": config | {"pair": pair}}, runner)
