"""Boxes and masks in step with the image."""

import numpy as np
import pytest

from mmjax.data import regions, rle
from mmjax.data.missing import make_fill
from mmjax.data.source import Source
from mmjax.data.sources.renumbered import renumbered
from mmjax.data.transforms.parse import parse

HEIGHT, WIDTH = 60, 90


def ellipse(rng):
    """A mask `[H, W]` of a random ellipse, some of it perhaps outside."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    cy, cx, ry, rx = rng.uniform([5, 5, 6, 6], [55, 85, 25, 35])
    return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1


def example(masks):
    """The first mask in the red channel of the image."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 0] = 255 * masks[0]
    found = regions.of_masks([rle.encode(m) for m in masks], range(len(masks)), HEIGHT, WIDTH)
    return {"key": "a", "image": image, "regions": found}


def box_of(mask):
    """x0, y0, x1, y1 in pixels of the image."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.asarray([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


CHAINS = (
    "decode",
    "decode | flip(1.0)",
    "decode | resize((70, 50), method='nearest')",
    "decode | resize_long(64, method='nearest') | pad_corner(72)",
    "decode | pad_square | resize(48, method='nearest')",
    "decode | center_crop((40, 110))",
    "decode | center_crop(31, half='even') | flip(1.0)",
    "decode | random_crop((50, 64), padding=7) | flip(0.5)",
    "decode | random_crop((80, 40))",
    "decode | random_resized_crop(56, scale=(0.2, 0.8), method='nearest') | flip(0.5)",
    "decode | flip(1.0) | random_crop((40, 50)) | flip(0.5) | resize((100, 70), method='nearest')",
)


@pytest.mark.parametrize("chain", CHAINS)
def test_boxes_and_masks_follow_the_image(chain):
    step = parse(f"{chain} | regions(3, masks=True)")
    compared = 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        given = example([ellipse(rng) for _ in range(2)])
        out = step(given, rng)
        height, width = out["image"].shape[:2]
        assert out["masks"].shape == (3, height, width)
        for box, mask, there in zip(out["boxes"], out["masks"], out["boxes_mask"]):
            if there:
                pixels = box * [width, height, width, height]
                # Within a pixel, of the image or of the one it is enlarged from.
                x0, y0, x1, y1 = out["frame"]
                scale = height / (y1 - y0) / HEIGHT, width / abs(x1 - x0) / WIDTH
                np.testing.assert_allclose(pixels, box_of(mask), atol=1.01 * max(1, *scale))
                compared += 1
        shown = out["image"][..., 0] > 127
        if out["box_label"][0] == 0 and out["boxes_mask"][0]:
            # Resizing may round a pixel's middle to another side than Pillow does.
            assert (shown != out["masks"][0]).mean() < 0.02
    assert compared > 25


@pytest.mark.parametrize("chain", CHAINS[:7])
def test_the_frame_takes_boxes_back(chain):
    rng = np.random.default_rng(3)
    given = example([np.pad(np.ones((8, 10), bool), ((26, 26), (40, 40)))])
    out = parse(f"{chain} | regions(1)")(given, rng)
    back = regions.out_of_frame(out["boxes"].astype(np.float64), out["frame"])
    np.testing.assert_allclose(back, given["regions"].boxes, atol=1e-6)


def test_what_a_crop_removes_is_left_out():
    left, right = np.zeros((2, HEIGHT, WIDTH), bool)
    left[10:20, 5:15], right[30:40, 70:80] = True, True
    out = parse("decode | center_crop((60, 70)) | regions(4, masks=True)")(
        example([left, right]), None
    )
    assert out["boxes_mask"].tolist() == [True, True, False, False]
    # Columns 10 to 80 are kept: half of the left square.
    np.testing.assert_allclose(out["boxes"][0] * [70, 60, 70, 60], [0, 10, 5, 20], atol=1e-4)
    out = parse("decode | center_crop((60, 40)) | regions(2)")(example([left, right]), None)
    assert not out["boxes_mask"].any()
    assert (out["boxes"] == 0).all() and (out["box_label"] == -1).all()


def test_a_cut_box_is_that_of_the_visible_mask():
    corner = np.tri(HEIGHT, WIDTH, dtype=bool)  # below the diagonal: at the top only the left
    out = parse("decode | random_crop((20, 90)) | regions(1)")(
        example([corner]), np.random.default_rng(1)
    )
    frame = out["frame"]
    top = round(float(frame[1]) * HEIGHT)
    expected = [0, 0, min(top + 20, 60), 20]
    np.testing.assert_allclose(out["boxes"][0] * [90, 20, 90, 20], expected, atol=1e-4)


def test_more_regions_than_slots_are_drawn_in_order_and_crowds_left_out():
    masks = [np.pad(np.ones((2, 2), bool), ((4 * i, 58 - 4 * i), (0, 88))) for i in range(10)]
    given = example(masks)
    given["regions"].crowd[3] = True
    seen = set()
    for seed in range(20):
        out = parse("decode | regions(4)")(given, np.random.default_rng(seed))
        assert np.all(np.diff(out["box_label"]) > 0)
        seen |= set(out["box_label"].tolist())
    assert seen == set(range(10)) - {3}


def test_examples_that_do_not_fit_are_refused():
    step = parse("decode | regions(2)")
    with pytest.raises(ValueError, match="has no regions: use a source with boxes"):
        step({"key": "a", "image": np.zeros((8, 8, 3), np.uint8)}, None)
    for image in (b"png", np.zeros((2, HEIGHT, WIDTH, 3), np.uint8), None):
        given = example([np.ones((HEIGHT, WIDTH), bool)]) | {"image": image}
        with pytest.raises(ValueError, match="comes after decode"):
            parse("regions(2)")(given, None)
    with pytest.raises(ValueError, match="positive whole number"):
        parse("regions(0)")
    for turn in ("random_affine(10)", "rand_augment(2, 9)"):
        with pytest.raises(ValueError, match="boxes of its regions cannot follow"):
            parse(f"decode | {turn}")(example([np.ones((HEIGHT, WIDTH), bool)]), None)
    alone = example([np.ones((HEIGHT, WIDTH), bool)])
    alone["regions"].segments[0] = None
    with pytest.raises(ValueError, match="has a box and no mask"):
        parse("decode | regions(2, masks=True)")(alone, None)


def test_a_part_of_a_mixture_without_regions_has_none():
    out = parse("decode | regions(2, masks=True)")(example([np.ones((HEIGHT, WIDTH), bool)]), None)
    with_regions = {k: v for k, v in out.items() if isinstance(v, np.ndarray)}
    fill = make_fill({"a": with_regions, "b": {"image": out["image"]}}, {})
    row = fill({"image": out["image"]})
    assert not row["boxes_mask"].any() and not row["masks"].any()
    assert row["box_label"].tolist() == [-1, -1] and row["boxes"].shape == (2, 4)
    assert fill(dict(with_regions))["boxes_mask"].tolist() == [True, False]


class Numbered(Source):
    name, class_names = "numbered", ["cat", "dog"]

    def __len__(self):
        return 1

    def __getitem__(self, i):
        return example([np.ones((HEIGHT, WIDTH), bool)] * 2)


def test_labels_of_regions_are_numbered_by_name():
    found = renumbered(Numbered(), ["bus", "dog", "cat"], "the head")[0]
    assert found["regions"].labels.tolist() == [2, 1] and found["regions"].labels.dtype == np.int32
