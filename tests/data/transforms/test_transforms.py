"""Transforms against closed forms and slow references in float64; the chain language."""

import colorsys
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from mmjax.data.transforms import image_ops
from mmjax.data.transforms.parse import parse, parse_batch, sample_crop
from mmjax.data.transforms.rand_augment import rand_augment_ops


def noise(h=24, w=31, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


def coordinates(h, w):
    """An image whose pixel says where it is: (y, x, 7)."""
    y, x = np.mgrid[0:h, 0:w]
    return np.stack([y, x, np.full_like(x, 7)], -1).astype(np.uint8)


def smooth(h=48, w=48):
    y, x = np.mgrid[0:h, 0:w]
    waves = [np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)]
    return np.stack([127 + 100 * wave for wave in waves], -1).astype(np.uint8)


def run(spec, image, seed=0, **context):
    return parse(spec, **context)({"image": image}, np.random.default_rng(seed))["image"]


# ---- the language --------------------------------------------------------------------------------


class Reverse:
    """A tokenizer to test with: the code points of the text, backwards."""

    def encode(self, texts, length):
        rows = [[ord(c) for c in reversed(text)][:length] for text in texts]
        text = np.array([row + [0] * (length - len(row)) for row in rows], np.int32)
        return text, text > 0


def test_a_whole_chain():
    transform = parse(
        """decode
           | random_resized_crop(16, scale=(0.6, 1)) | flip | color_jitter(0.4, 0.4, 0.4, 0.1)
           | rand_augment(2, 9) | choose_caption("plain") | tokenize(4) | label""",
        tokenizer=Reverse(),
        class_names=["a", "b"],
    )
    example = {"image": noise(), "captions": ["abc"], "label": "b", "key": 3}
    before = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in example.items()}
    out = transform(example, np.random.default_rng(0))
    assert out["image"].shape == (16, 16, 3) and out["image"].dtype == np.uint8
    assert out["text"].tolist() == [99, 98, 97, 0]
    assert out["text_mask"].tolist() == [True, True, True, False]
    assert out["label"] == 1 and out["label"].dtype == np.int32 and out["key"] == 3
    np.testing.assert_array_equal(example.pop("image"), before.pop("image"))
    assert example == before


def test_the_empty_chain_changes_nothing():
    assert parse(" ")({"x": 1}, None) == {"x": 1}


def test_steps_run_in_the_order_written():
    image = coordinates(10, 20)
    a = run("center_crop((10, 10)) | resize((10, 20), 'nearest')", image)
    b = run("resize((10, 20), 'nearest') | center_crop((10, 10))", image)
    assert a.shape == (10, 20, 3) and b.shape == (10, 10, 3)


@pytest.mark.parametrize(
    "spec, words",
    [
        ("decod", "'decode'.*center_crop.*tokenize"),
        ("decode | flipp(0.3)", "'flip'"),
        ("flip(q=1)", r"flip\(p=0.5\).*'q'"),
        ("flip(0.1, 0.2)", "too many"),
        ("resize", "size"),
        ("resize(-3)", "-3"),
        ("resize(2.5)", "2.5"),
        ("resize(8, 'bicubi')", "bicubic"),
        ("random_resized_crop(8, scale=(0.5, 0.2))", "scale"),
        ("color_jitter(hue=0.7)", "0.7"),
        ("tokenize(3)", "tokenizer"),
        ("decode | ", "cannot be read"),
        ("decode decode", "cannot be read"),
        ("flip(__import__('os').getcwd())", "plain"),
        ("flip(p=x)", "plain"),
        ("flip(**{'p': 1})", r"\*\*"),
        ("a.b(3)", "no step"),
        ("1 + 2", "no step"),
        ("choose_caption('fotos')", "photo"),
        ("mixup(0.2, 3)", "mixup"),
    ],
)
def test_bad_chains(spec, words):
    with pytest.raises(ValueError, match=words):
        parse(spec)


def test_errors_name_the_example_and_the_order():
    with pytest.raises(ValueError, match="'image' of example 'p/7.jpg'"):
        parse("decode")({"image": b"\xff\xd8\xff junk", "key": "p/7.jpg"}, None)
    with pytest.raises(ValueError, match="NoneType"):
        parse("decode")({}, None)
    with pytest.raises(ValueError, match="decode first"):
        parse("flip")({"image": b"..."}, np.random.default_rng(0))
    with pytest.raises(ValueError, match="after choose_caption"):
        parse("tokenize(4)", tokenizer=Reverse())({}, None)


IMAGE_STEPS = [
    "resize(9)",
    "resize_short(9)",
    "center_crop((9, 12))",
    "random_crop(9, padding=2)",
    "random_resized_crop(9)",
    "flip",
    "random_affine(20, 0.1, (0.8, 1.2))",
    "color_jitter(0.4, 0.4, 0.4, 0.1)",
    "random_grayscale(0.5)",
    "rand_augment(2, 9)",
    "random_erasing(1.0)",
]


@settings(max_examples=60)
@given(
    steps=st.lists(st.sampled_from(IMAGE_STEPS), min_size=1, max_size=4),
    h=st.integers(9, 30),
    w=st.integers(9, 30),
    seed=st.integers(0, 99),
)
def test_every_chain_gives_uint8_and_depends_on_the_seed_alone(steps, h, w, seed):
    image = noise(h, w, seed)
    before = image.copy()
    out = run(" | ".join(steps), image, seed)
    assert out.dtype == np.uint8 and out.ndim == 3 and out.shape[2] == 3
    np.testing.assert_array_equal(out, run(" | ".join(steps), image, seed))
    np.testing.assert_array_equal(image, before)


# ---- sizes ---------------------------------------------------------------------------------------

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


# ---- affine --------------------------------------------------------------------------------------


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


# ---- colours -------------------------------------------------------------------------------------

LUMA = np.array([0.299, 0.587, 0.114])


def blend(a, b, share):
    return np.clip(a * (1 - share) + b * share, 0, 255)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_colour_operations_equal_their_formulas(factor):
    image = noise()
    grey = (image @ LUMA)[..., None]
    for op, other in (
        (image_ops.brightness, 0.0),
        (image_ops.contrast, grey.mean()),
        (image_ops.saturation, grey),
    ):
        assert np.abs(op(image, factor) - blend(other, image, factor)).max() <= 1.5


def test_grayscale():
    out = image_ops.grayscale(noise())
    assert np.abs(out - (noise() @ LUMA)[..., None]).max() <= 1
    assert (run("random_grayscale(1.0)", noise()) == out).all()
    assert (run("random_grayscale(0.0)", noise()) == noise()).all()


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.0, 0.25, 0.5])
def test_hue_turns_the_colour_circle(shift):
    """Against colorsys; 8-bit HSV is worth some levels of error."""
    image = smooth(12, 12)
    out = image_ops.hue(image, shift)
    for pixel, turned in zip(image.reshape(-1, 3), out.reshape(-1, 3)):
        h, s, v = colorsys.rgb_to_hsv(*(pixel / 255))
        expected = 255 * np.array(colorsys.hsv_to_rgb((h + shift) % 1, s, v))
        assert np.abs(turned - expected).max() <= 9


def test_color_jitter_covers_its_range():
    image = np.full((4, 4, 3), 100, np.uint8)
    values = [run("color_jitter(brightness=0.4)", image, seed)[0, 0, 0] for seed in range(300)]
    assert 60 <= min(values) < 64 and 136 < max(values) <= 140
    np.testing.assert_array_equal(run("color_jitter", image), image)
    np.testing.assert_array_equal(run("color_jitter(0.4, p=0.0)", image), image)


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterize(bits):
    step = 2 ** (8 - bits)
    np.testing.assert_array_equal(image_ops.posterize(noise(), bits), noise() // step * step)


def test_solarize():
    image = np.array([[[0, 127, 128], [129, 200, 255]]], np.uint8)
    expected = [[[0, 127, 127], [126, 55, 0]]]
    np.testing.assert_array_equal(image_ops.solarize(image, 128), expected)
    np.testing.assert_array_equal(image_ops.solarize(image, 256), image)
    np.testing.assert_array_equal(image_ops.solarize(image, 0), 255 - image)


def test_autocontrast_and_equalize():
    image = noise(80, 80) // 4 + np.uint8(50)
    low, high = image.min((0, 1)), image.max((0, 1))
    expected = (image.astype(float) - low) * 255 / (high - low)
    assert np.abs(image_ops.autocontrast(image) - expected).max() <= 1
    flat = image_ops.equalize(image)[..., 0].ravel()
    # a flat histogram: the share of pixels up to a level is the level's own share
    for level in (64, 128, 192):
        assert abs((flat <= level).mean() - level / 255) < 0.05


@pytest.mark.parametrize("name", rand_augment_ops(0))
def test_rand_augment_grows_with_its_magnitude(name):
    image = smooth() // 2 + noise(48, 48) // 8 + np.uint8(40)  # detail, and slow waves

    def change(level, sign):
        out = rand_augment_ops(level)[name](image, sign)
        assert out.shape == image.shape and out.dtype == np.uint8
        return np.abs(out.astype(float) - image).mean()

    for sign in (1, -1):
        changes = [change(level, sign) for level in (0, 0.3, 0.9)]
        if name == "identity":
            assert changes == [0, 0, 0]
        elif name in ("autocontrast", "equalize"):
            assert changes[0] == changes[1] == changes[2] > 0
        else:
            assert changes[0] < 0.5 < changes[2] and changes[0] < changes[1] < changes[2]


def test_rand_augment_draws_every_operation():
    """With one layer, some image stays itself (identity) and the others differ from each other."""
    image = smooth()
    outs = {run("rand_augment(1, 9)", image, seed).tobytes() for seed in range(300)}
    # 10 operations of two signs (but for solarize, posterize), 2 with one, the untouched image
    assert len(outs) == 9 * 2 + 2 + 2 + 1 and image.tobytes() in outs
    assert (run("rand_augment(0, 9)", image) == image).all()


def test_random_erasing_changes_one_rectangle():
    image = np.full((40, 40, 3), 100, np.uint8)
    shares = []
    for seed in range(100):
        changed = (run("random_erasing(1.0, scale=(0.1, 0.3))", image, seed) != 100).any(-1)
        y, x = np.nonzero(changed)
        box = changed[y.min() : y.max() + 1, x.min() : x.max() + 1]
        assert box.mean() > 0.97  # noise is 100 by chance now and then
        shares.append(box.size / changed.size)
    assert 0.08 < min(shares) < 0.13 and 0.27 < max(shares) < 0.32


# ---- labels and batches --------------------------------------------------------------------------


def test_label():
    transform = parse("label", class_names=["a", "b"])
    for value in (1, "b", b"b", np.int64(1)):
        out = transform({"label": value}, None)["label"]
        assert out == 1 and out.dtype == np.int32
    for value in (2, -1, "c", None):
        with pytest.raises(ValueError, match="2 classes"):
            transform({"label": value}, None)
    assert parse("label")({"label": 7}, None)["label"] == 7


@settings(max_examples=40)
@given(alpha=st.floats(0.05, 5), seed=st.integers(0, 999), n=st.sampled_from([2, 4, 8]))
def test_mixup_mixes_labels_as_it_mixes_images(alpha, seed, n):
    """Images that hold 20 · their label: the mixed one holds 20 · the expected label."""
    label = np.random.default_rng(seed).integers(0, 10, n).astype(np.int32)
    image = (20 * label)[:, None, None, None].astype(np.uint8) * np.ones((1, 2, 3, 3), np.uint8)
    batch = {"image": image, "label": label}
    out = parse_batch(f"mixup({alpha}, 10)")(batch, np.random.default_rng(seed))
    probs = out["label_probs"]
    assert out["image"].dtype == np.uint8 and probs.dtype == np.float32
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-6)
    expected = 20 * (probs @ np.arange(10, dtype=np.float32))
    assert np.abs(out["image"] - expected[:, None, None, None]).max() <= 0.501
    np.testing.assert_array_equal(out["label"], label)
    # every example keeps its share, and every example is some other's partner
    np.testing.assert_allclose(probs.sum(0), np.bincount(label, minlength=10), atol=1e-5)


def test_mixup_shares_follow_beta():
    batch = {"image": np.zeros((2, 1, 1, 3), np.uint8), "label": np.array([0, 1], np.int32)}
    transform, rng, shares = parse_batch("mixup(0.4, 2)"), np.random.default_rng(0), []
    while len(shares) < 500:
        shares.append(transform(batch, rng)["label_probs"][0, 0])
    assert stats.kstest(shares, "beta", (0.4, 0.4)).pvalue > 1e-3


def test_mixup_goes_on_from_soft_labels_and_checks_hard_ones():
    soft = np.array([[0.5, 0.5], [0.0, 1.0]], np.float32)
    batch = {"image": np.zeros((2, 1, 1, 3), np.uint8), "label_probs": soft}
    for seed in range(9):
        out = parse_batch("mixup(1.0, 2)")(batch, np.random.default_rng(seed))["label_probs"]
        np.testing.assert_allclose(out.sum(0), [0.5, 1.5], atol=1e-6)
    batch = {"image": batch["image"], "label": np.array([0, 5], np.int32)}
    with pytest.raises(ValueError, match="mixes pairs and a process has 1 rows"):
        parse_batch("mixup(1.0, 2)")({k: v[:1] for k, v in batch.items()}, None)
    with pytest.raises(ValueError, match="num_classes=3"):
        parse_batch("mixup(1.0, 3)")(batch, np.random.default_rng(0))


def test_longest_caption_without_some_words():
    step = parse("longest_caption | drop_words(('animal', 'Animals'))")
    example = {"captions": ["a cat", "Animal, the cat; animals-like animality", ""]}
    assert step(example, None)["caption"] == ", the cat; -like animality"
    with pytest.raises(ValueError, match="drop_words comes after"):
        parse("drop_words(('a',))")(example, None)
