"""Hierarchical k-means beside scikit-learn and a slow reference, and its folders."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mmjax.data import clusters

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "kmeans.safetensors")


def vectors(count=200, width=3, groups=7, seed=0):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(groups, width)) * 4
    noise = rng.normal(size=(count, width))
    return (means[rng.integers(groups, size=count)] + noise).astype(np.float32)


@pytest.mark.parametrize("case", range(3))
def test_lloyd_s_iterations_are_those_of_scikit_learn(case):
    x, start, want = (GOLDEN[f"{case}.{name}"] for name in ("x", "start", "centers"))
    centers = clusters.lloyd(x, start, 100)
    np.testing.assert_allclose(centers, want, atol=1e-5)
    np.testing.assert_array_equal(clusters.assign(x, centers)[0], GOLDEN[f"{case}.labels"])


def slow_lloyd(x, centers, iterations):
    """Without empty clusters."""
    for _ in range(iterations):
        nearest = [np.argmin([np.square(v - c).sum() for c in centers]) for v in x]
        centers = [
            np.mean([v for v, n in zip(x, nearest) if n == i], axis=0) for i in range(len(centers))
        ]
    return np.asarray(centers)


def slow_ids(tree, x):
    found = []
    for v in x:
        node = 0
        for level in tree.centers:
            distance = [np.square(v - c).sum() for c in level[node]]
            node = node * tree.k + int(np.argmin(distance))
        found.append(node)
    return found


def test_a_tree_is_k_means_within_each_cluster():
    x = vectors()
    tree = clusters.fit(x, 2, 3, seed=5)
    rng = np.random.default_rng([5, 0, 0])
    first = slow_lloyd(x, clusters.first_centers(x, 3, rng), 50)
    np.testing.assert_allclose(tree.centers[0][0], first, atol=1e-4)
    for node in range(3):
        mine = x[clusters.assign(x, tree.centers[0][0])[0] == node]
        rng = np.random.default_rng([5, 1, node])
        want = slow_lloyd(mine, clusters.first_centers(mine, 3, rng), 50)
        np.testing.assert_allclose(tree.centers[1][node], want, atol=1e-4)
    other = vectors(seed=1)
    ids = tree.ids(other.reshape(10, 20, 3))
    assert ids.dtype == np.int32 and tree.size == 9
    np.testing.assert_array_equal(ids.reshape(-1), slow_ids(tree, other))
    np.testing.assert_array_equal(tree.counts, np.bincount(tree.ids(x), minlength=9))


def test_the_first_centers_are_drawn_by_their_distance():
    x = np.array([[0.0], [1.0], [3.0]], np.float32)
    draws = [clusters.first_centers(x, 2, np.random.default_rng(i)).ravel() for i in range(4000)]
    of = {(a, b): 0 for a in (0, 1, 3) for b in (0, 1, 3)}
    for a, b in draws:
        of[int(a), int(b)] += 1
    squares = {(0, 1): 1, (0, 3): 9, (1, 0): 1, (1, 3): 4, (3, 0): 9, (3, 1): 4}
    for (a, b), square in squares.items():
        whole = sum(s for (first, _), s in squares.items() if first == a)
        assert of[a, b] / 4000 == pytest.approx(square / whole / 3, abs=0.03)


def test_mini_batches_are_running_means():
    x, rng = vectors(), np.random.default_rng(3)
    centers = x[:4].copy()
    found = clusters.mini_batches(x, centers, np.random.default_rng(3), 6, 20)
    held = [[] for _ in range(4)]
    want = centers.astype(np.float64)
    for _ in range(6):
        part = x[rng.integers(len(x), size=20)]
        chosen = [int(np.argmin(np.square(v - want).sum(1))) for v in part]
        for v, c in zip(part, chosen):
            held[c].append(v)
        want = np.stack([np.mean(h, axis=0) if h else w for h, w in zip(held, want)])
    np.testing.assert_allclose(found, want, atol=1e-4)
    full = clusters.fit(x, 1, 7, seed=0)
    some = clusters.fit(x, 1, 7, seed=0, iterations=100, batch=50)
    spread = [clusters.assign(x, tree.centers[0][0])[1].mean() for tree in (full, some)]
    assert spread[1] < 1.2 * spread[0]


def test_fewer_vectors_than_clusters_and_an_empty_cluster():
    x = np.array([[0, 0], [0, 0], [5, 5]], np.float32)
    tree = clusters.fit(x, 2, 4)
    assert (tree.counts > 0).sum() == 2 and tree.counts.sum() == 3
    assert len(set(tree.ids(x).tolist())) == 2
    start = np.array([[0.0], [0.5], [90.0]], np.float32)
    found = clusters.lloyd(np.array([[0.0], [1.0], [2.0], [9.0]], np.float32), start, 50)
    assert sorted(found.ravel().tolist()) == [0.0, 1.5, 9.0]  # the third had none


def test_saved_and_loaded(tmp_path):
    tree = clusters.fit(vectors(), 2, 3, features={"kind": "pixels", "size": 12})
    clusters.save(tree, tmp_path / "a")
    again = clusters.load(tmp_path / "a")
    assert again.features == tree.features
    for one, other in zip((*tree.centers, tree.counts), (*again.centers, again.counts)):
        np.testing.assert_array_equal(one, other)
    clusters.save(clusters.fit(vectors(), 2, 3, features=tree.features), tmp_path / "b")
    for name in ("clusters.json", "clusters.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    about = json.loads((tmp_path / "a" / "clusters.json").read_text())
    assert about["leaves_used"] == 9 and about["vectors"] == 200
    (tmp_path / "a" / "clusters.json").write_text(json.dumps(about | {"format": 9}))
    with pytest.raises(ValueError, match="has the format 9, and this version of mmjax reads 1"):
        clusters.load(tmp_path / "a")
    (tmp_path / "b" / "clusters.safetensors").write_bytes(b"12345678")
    with pytest.raises(ValueError, match="are damaged"):
        clusters.load(tmp_path / "b")
    for text in (b"[1]", b"{", b"\xff", json.dumps(about | {"k": 4}).encode()):
        (tmp_path / "a" / "clusters.json").write_bytes(text)
        with pytest.raises(ValueError, match="The clusters in '.*/a' are damaged"):
            clusters.load(tmp_path / "a")
    with pytest.raises(ValueError, match="no clusters in .*: make them by `python -m mmjax"):
        clusters.load(tmp_path / "c")


def test_wrong_vectors_are_said():
    with pytest.raises(ValueError, match=r"need vectors \[N, D\], not an array \[0, 3\]"):
        clusters.fit(np.zeros((0, 3)), 1, 2)
    with pytest.raises(ValueError, match="1 of 4 vectors, the first of them number 2, are not"):
        clusters.fit(np.asarray([[0.0], [1.0], [np.nan], [2.0]]), 1, 2)
    with pytest.raises(ValueError, match="clusters of 0 levels of 2"):
        clusters.fit(np.zeros((4, 3)), 0, 2)
    with pytest.raises(ValueError, match="have 2 numbers and the clusters 3"):
        clusters.fit(vectors(), 1, 2).ids(np.zeros((4, 2)))
