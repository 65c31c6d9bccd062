"""Metrics of generated images beside the libraries that define them, and closed forms."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mmjax.evals.metrics.clip_score import clip_scores
from mmjax.evals.metrics.frechet import frechet_distance
from mmjax.evals.metrics.kernel_distance import kernel_distance, squared_mmd
from mmjax.evals.metrics.manifold import copying, nearest_rows, precision_recall
from mmjax.evals.metrics.reconstruction import bits_per_dimension, psnr, ssim

GOLDEN = load_file(Path(__file__).parents[2] / "golden" / "image_metrics.safetensors")


@pytest.mark.parametrize("case", [0, 1])
def test_metrics_of_features_are_those_of_the_libraries(case):
    made, real = (GOLDEN[f"{case}.{name}"] for name in ("made", "real"))
    expected = {k: float(GOLDEN[f"{case}.{k}"]) for k in ("fid", "kid", "kid_std", "whole")}
    # pytorch-fid's root of a product of singular covariances is that of a matrix, with its noise.
    np.testing.assert_allclose(frechet_distance(made, real), expected["fid"], rtol=1e-6)
    found = kernel_distance(made, real, subsets=6, subset_size=13)
    np.testing.assert_allclose(found, [expected["kid"], expected["kid_std"]], rtol=1e-9)
    whole = squared_mmd(made[:20].astype(np.float64), real[:20].astype(np.float64))
    np.testing.assert_allclose(whole, expected["whole"], rtol=1e-9)
    expected = [GOLDEN[f"{case}.precision"], GOLDEN[f"{case}.recall"]]
    np.testing.assert_allclose(precision_recall(made, real), expected, rtol=1e-6)


def test_the_distance_of_equal_and_of_moved_features_is_exact():
    x = np.random.default_rng(0).normal(size=(9, 30)).astype(np.float32)
    assert frechet_distance(x, x) < 1e-11
    np.testing.assert_allclose(frechet_distance(x, x + 2.0), 30 * 4.0, rtol=1e-6)
    # Covariances that commute: the squared distance of their roots, (2 - 1)² times the trace.
    twice = frechet_distance(2 * (x - x.mean(0)), x - x.mean(0))
    np.testing.assert_allclose(twice, x.var(0, ddof=1).sum(), rtol=1e-5)


def test_features_that_say_nothing_are_refused():
    one, two = np.zeros((1, 3)), np.full((4, 3), np.nan)
    for bad in (one, two):
        with pytest.raises(ValueError, match="finite features"):
            frechet_distance(np.zeros((4, 3)), bad)
        with pytest.raises(ValueError, match="finite features"):
            kernel_distance(bad, np.zeros((4, 3)))
    with pytest.raises(ValueError, match="more than 3 images and got 1"):
        precision_recall(np.zeros((5, 3)), one)


def test_the_kernel_distance_of_equal_distributions_is_0_on_average():
    rng = np.random.default_rng(0)
    found = [squared_mmd(*rng.normal(size=(2, 20, 4))) for _ in range(200)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(200)


def test_copies_are_found():
    rng = np.random.default_rng(0)
    train, held_out, fresh = rng.normal(size=(3, 200, 8))
    index, far = nearest_rows(train[[7, 3]], train)
    assert index.tolist() == [7, 3]
    assert far.tolist() == [0, 0]
    own = nearest_rows(held_out, train)[1]
    nearer, z = copying(nearest_rows(fresh, train)[1], own)
    assert 0.4 < nearer < 0.6
    assert abs(z) < 3
    nearer, z = copying(nearest_rows(train[:50] + 1e-3, train)[1], own)
    assert nearer == 1
    assert z < -8
    assert copying(own, own) == (0.5, 0)


def test_pairs_are_counted_as_the_slow_definition_counts_them():
    a, b = np.asarray([0.0, 1.0, 1.0, 3.0]), np.asarray([1.0, 2.0, 0.5])
    slow = np.mean([(x < y) + 0.5 * (x == y) for x in a for y in b])
    np.testing.assert_allclose(copying(a, b)[0], slow)


def test_reconstruction_metrics_are_those_of_scikit_image():
    images, blurry = GOLDEN["images"], GOLDEN["blurry"]
    np.testing.assert_allclose(psnr(blurry, images), GOLDEN["psnr"], rtol=1e-12)
    np.testing.assert_allclose(ssim(blurry, images), GOLDEN["ssim"], rtol=1e-9)
    assert np.isinf(psnr(images, images)).all()
    np.testing.assert_allclose(ssim(images, images), 1)
    with pytest.raises(ValueError, match="at least 11 pixels a side and got 10 x 17"):
        ssim(images[:, :10], blurry[:, :10])


def test_a_uniform_distribution_over_bytes_needs_8_bits():
    np.testing.assert_allclose(bits_per_dimension(12 * np.log(256), 12), 8)


def test_clip_scores_say_how_they_are_scaled():
    image = np.asarray([[1.0, 0], [0, 1], [-1, 0]])
    text = np.asarray([[1.0, 0], [0.6, 0.8], [1, 0]])
    expected = {"clip_cosine": 0.8 / 3, "clip_score_2.5x": 2.5 * 1.8 / 3}
    expected["clip_score_100x"] = 100 * 0.8 / 3
    found = clip_scores(image, text)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-12)
    assert clip_scores(image[2:], text[2:])["clip_score_100x"] == 0
