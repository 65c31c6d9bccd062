"""Resizing, windows and affine maps against their definitions."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from images import coordinates, noise, run, smooth
from scipy import stats

from mmjax.data.transforms import image_ops
from mmjax.data.transforms.image_steps import sample_crop
from mmjax.data.transforms.parse import parse

KERNELS = {  # (function, reach)
    "bilinear": (lambda x: max(0.0, 1 - abs(x)), 1),
    "bicubic": (
        # Keys 1981 with a = -0.5, Pillow's choice
        lambda x: (
            1.5 * abs(x) ** 3 - 2.5 * x * x + 1
            if abs(x) < 1
            else -0.5 * abs(x) ** 3 + 2.5 * x * x - 4 * abs(x) + 2
            if abs(x) < 2
            else 0.0
        ),
        2,
    ),
}


def resize_matrix(n_in, n_out, method, antialias):
    kernel, reach = KERNELS[method]
    scale = n_in / n_out
    widen = max(scale, 1.0) if antialias else 1.0
    matrix = np.zeros((n_out, n_in))
    for i in range(n_out):
        middle = (i + 0.5) * scale
        if antialias:
            for j in range(n_in):
                matrix[i, j] = kernel((j + 0.5 - middle) / widen)
            matrix[i] /= matrix[i].sum()
        else:  # the border pixel is repeated outwards
            base = math.floor(middle - 0.5)
            for j in range(base - reach, base + reach + 2):
                matrix[i, min(max(j, 0), n_in - 1)] += kernel(j + 0.5 - middle)
    return matrix


@settings(max_examples=60)
@given(
    h=st.integers(1, 40),
    w=st.integers(1, 40),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    method=st.sampled_from(["bilinear", "bicubic"]),
)
def test_resize_equals_the_definition(h, w, size, method):
    image = noise(h, w)
    rows = resize_matrix(h, size[0], method, True)
    columns = resize_matrix(w, size[1], method, True)
    # Pillow clips and rounds between the two passes, of which either may come first.
    across = np.clip(np.einsum("ij,yjc->yic", columns, image), 0, 255)
    down = np.clip(np.einsum("ij,jxc->ixc", rows, image), 0, 255)
    either = np.einsum("ij,jxc->ixc", rows, across), np.einsum("ij,yjc->yic", columns, down)
    out = run(f"resize({size}, {method!r})", image)
    assert min(np.abs(out - np.clip(expected, 0, 255)).max() for expected in either) <= 1.5


@settings(max_examples=40)
@given(
    h=st.integers(3, 40),
    w=st.integers(3, 40),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_resize_without_antialias_samples(h, w, size):
    image = noise(h, w)
    rows = resize_matrix(h, size[0], "bilinear", False)
    columns = resize_matrix(w, size[1], "bilinear", False)
    expected = np.einsum("ij,jkc,lk->ilc", rows, image, columns)
    out = run(f"resize({size}, 'bilinear', antialias=False)", image)
    assert np.abs(out - expected).max() <= 1.01


def test_resize_to_the_same_size_changes_nothing():
    for method in image_ops.METHODS:
        np.testing.assert_array_equal(run(f"resize((24, 31), {method!r})", noise()), noise())


@given(h=st.integers(1, 60), w=st.integers(1, 60), size=st.integers(1, 30))
@settings(max_examples=40)
def test_resize_short(h, w, size):
    out = run(f"resize_short({size}, 'nearest')", noise(h, w))
    assert min(out.shape[:2]) == size
    assert max(out.shape[:2]) == max(h, w) * size // min(h, w)
    assert (out.shape[0] <= out.shape[1]) == (h <= w) or out.shape[0] == out.shape[1]


def test_center_crop():
    out = run("center_crop((4, 6))", coordinates(10, 20))
    np.testing.assert_array_equal(out[0, 0, :2], [3, 7])
    np.testing.assert_array_equal(out, coordinates(10, 20)[3:7, 7:13])
    odd = run("center_crop((4, 6))", coordinates(11, 9))  # 7 and 3 pixels to leave out
    np.testing.assert_array_equal(odd, coordinates(11, 9)[3:7, 1:7])
    small = run("center_crop(8)", np.full((4, 6, 3), 9, np.uint8))
    expected = np.zeros((8, 8, 3))
    expected[2:6, 1:7] = 9
    np.testing.assert_array_equal(small, expected)


def test_random_crop_is_a_window_and_reaches_every_place():
    image, seen = coordinates(6, 7) + 1, set()
    transform, rng = parse("random_crop((4, 5), padding=1)"), np.random.default_rng(0)
    padded = np.zeros((8, 9, 3), np.uint8)
    padded[1:7, 1:8] = image
    for _ in range(600):
        out = transform({"image": image}, rng)["image"]
        (place,) = (
            (y, x)
            for y in range(5)
            for x in range(5)
            if (padded[y : y + 4, x : x + 5] == out).all()
        )
        seen.add(place)
    assert len(seen) == 25


@settings(max_examples=200)
@given(
    h=st.integers(1, 300),
    w=st.integers(1, 300),
    low=st.floats(0.05, 1),
    high=st.floats(0.05, 1),
    seed=st.integers(0, 999),
)
def test_sampled_windows(h, w, low, high, seed):
    """Inside the image; of the wanted area and shape, but for rounding, or the fallback."""
    assume(low <= high)
    ratio = (3 / 4, 4 / 3)
    top, left, ch, cw = sample_crop(h, w, (low, high), ratio, np.random.default_rng(seed))
    assert 0 <= top <= h - ch and 0 <= left <= w - cw and ch > 0 and cw > 0

    def possible(area, aspect):
        return (
            (cw - 0.5) * (ch - 0.5) <= area[1] * h * w
            and (cw + 0.5) * (ch + 0.5) >= area[0] * h * w
            and (cw - 0.5) / (ch + 0.5) <= aspect[1]
            and (cw + 0.5) / max(ch - 0.5, 1e-9) >= aspect[0]
        )

    fallback = (min(h, round(w / ratio[0])), min(w, round(h * ratio[1])))
    assert possible((low, high), ratio) or (ch, cw) == fallback


def test_sampled_windows_are_distributed_as_asked():
    """Area uniform, aspect log-uniform, place uniform (Kolmogorov-Smirnov)."""
    rng, n = np.random.default_rng(0), 2000
    boxes = [sample_crop(10_000, 10_000, (0.1, 0.4), (0.5, 2.0), rng) for _ in range(n)]
    top, left, h, w = np.array(boxes, float).T
    assert stats.kstest(h * w / 1e8, "uniform", (0.1, 0.3)).pvalue > 1e-3
    aspect = np.log(w / h) / np.log(4) + 0.5
    assert stats.kstest(aspect, "uniform").pvalue > 1e-3
    assert stats.kstest(top / (10_000 - h), "uniform").pvalue > 1e-3
    assert stats.kstest(left / (10_000 - w), "uniform").pvalue > 1e-3


def test_random_resized_crop_shows_the_sampled_window():
    image = smooth(60, 80)
    for seed in range(5):
        top, left, h, w = sample_crop(60, 80, (0.3, 1), (3 / 4, 4 / 3), np.random.default_rng(seed))
        out = run("random_resized_crop((20, 24), scale=(0.3, 1))", image, seed)
        window = image[top : top + h, left : left + w]
        rows = resize_matrix(h, 20, "bicubic", True)
        columns = resize_matrix(w, 24, "bicubic", True)
        expected = np.einsum("ij,jkc,lk->ilc", rows, window, columns)
        assert np.abs(out - np.clip(expected, 0, 255)).max() <= 2


def test_flip():
    image = noise()
    np.testing.assert_array_equal(run("flip(1.0)", image), image[:, ::-1])
    np.testing.assert_array_equal(run("flip(0.0)", image), image)
    flipped = sum((run("flip(0.3)", image, seed) != image).any() for seed in range(500))
    assert abs(flipped / 500 - 0.3) < 5 * math.sqrt(0.21 / 500)


def test_rotation_by_quarter_turns():
    image = noise(20, 20)
    for turns in range(4):
        out = image_ops.affine(image, degrees=90 * turns).astype(int)
        assert np.abs(out - np.rot90(image, turns)).max() <= 1


def test_translation_by_whole_pixels():
    image = coordinates(10, 12) + 1
    out = image_ops.affine(image, translate=(3, -2), fill=(5, 6, 9))
    np.testing.assert_array_equal(out[:8, 3:], image[2:, :9])
    assert (out[8:] == (5, 6, 9)).all() and (out[:, :3] == (5, 6, 9)).all()


def test_affine_equals_the_definition():
    """Sends every output pixel back by the inverse map and reads the image there, bilinearly."""
    image = smooth(40, 50)
    degrees, shift, scale, shear = 17.0, (3.2, -4.1), 1.2, (0.1, -0.05)
    out = image_ops.affine(image, degrees, shift, scale, shear)
    a = math.radians(degrees)
    for y in range(14, 27):
        for x in range(18, 33):
            # seen from the middle, y down: undo the shift, the rotation and zoom, the shear
            u, v = x + 0.5 - 25 - shift[0], y + 0.5 - 20 - shift[1]
            u, v = (
                (math.cos(a) * u - math.sin(a) * v) / scale,
                (math.sin(a) * u + math.cos(a) * v) / scale,
            )
            determinant = 1 - shear[0] * shear[1]
            u, v = (u - shear[0] * v) / determinant, (v - shear[1] * u) / determinant
            px, py = u + 25 - 0.5, v + 20 - 0.5
            x0, y0 = math.floor(px), math.floor(py)
            fx, fy = px - x0, py - y0
            corner = image[y0 : y0 + 2, x0 : x0 + 2].astype(float)
            expected = np.einsum("i,j,ijc->c", [1 - fy, fy], [1 - fx, fx], corner)
            assert np.abs(out[y, x] - expected).max() <= 1.01


def test_random_affine_stays_in_its_ranges():
    """A white dot on black, shifted only: it never leaves the range, and uses all of it."""
    image = np.zeros((41, 41, 3), np.uint8)
    image[18:23, 18:23] = 255
    places = []
    for seed in range(200):
        out = run("random_affine(translate=0.2, fill=0)", image, seed)[..., 0].astype(float)
        y, x = np.mgrid[0:41, 0:41]
        places.append([(out * y).sum() / out.sum() - 20, (out * x).sum() / out.sum() - 20])
    places = np.array(places)
    assert np.abs(places).max() <= 0.2 * 41 + 0.2
    assert places.max(0).min() > 7 and places.min(0).max() < -7


@given(h=st.integers(8, 60), w=st.integers(8, 60), multiple=st.sampled_from([1, 4, 8]))
def test_sides_between_two_bounds(h, w, multiple):
    """The rule of ViLT: the shorter side first, then the bound of the longer one, then rounding."""
    assume(min(h, w) / max(h, w) > 0.25)
    shorter, longer = 16, 40
    scale = min(shorter / min(h, w), longer / max(h, w))
    want = [math.floor(math.floor(side * scale + 0.5) / multiple) * multiple for side in (h, w)]
    found = run(f"resize_between({shorter}, {longer}, {multiple})", noise(h, w)).shape[:2]
    assert all(abs(a - b) in (0, multiple) for a, b in zip(found, want))  # rounding of the product
    assert max(found) <= longer and min(found) <= shorter
    np.testing.assert_array_equal(
        run(f"resize({found})", noise(h, w)),
        run(f"resize_between({shorter}, {longer}, {multiple})", noise(h, w)),
    )


def test_padding_at_the_corner_keeps_the_size_before():
    image = noise(5, 7)
    out = parse("pad_corner((6, 9), fill=3)")({"image": image}, None)
    assert out["image_size"].tolist() == [5, 7] and out["image_size"].dtype == np.int32
    np.testing.assert_array_equal(out["image"][:5, :7], image)
    assert out["image"].shape == (6, 9, 3) and (out["image"][5:] == 3).all()
    assert (out["image"][:, 7:] == 3).all()
    batch = image_ops.pad_together([image, noise(8, 2)])
    assert batch["image"].shape == (2, 8, 7, 3) and batch["image_size"].tolist() == [[5, 7], [8, 2]]
    np.testing.assert_array_equal(batch["image"][1, :, :2], noise(8, 2))
    with pytest.raises(ValueError, match="5x7 pixels does not fit into 6x6: resize it before"):
        parse("pad_corner(6)")({"image": image}, None)
    assert run("resize_between(16, 32, 8)", noise(60, 4)).shape == (32, 8, 3)
