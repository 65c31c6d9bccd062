"""Mosaics: every pixel and box is where its image is; deterministic; refused settings."""

import numpy as np
import pytest

from mmjax.data.open_source import open_source
from mmjax.data.regions import Regions
from mmjax.data.sources.mosaics import open_mosaics
from mmjax.data.sources.occurring import open_occurring

COUNT = 5


class Squares:
    """Image i is of one gray 10 + i, with a white square whose box is its only region."""

    name, class_names = "squares", [f"name {i}" for i in range(COUNT)]

    def __len__(self):
        return COUNT

    def __getitem__(self, i):
        image = np.full((12, 24, 3), 10 + i, np.uint8)
        image[i : i + 6, 2 * i : 2 * i + 12] = 255
        return {**self.meta(i), "image": image}

    def meta(self, i):
        box = np.asarray([[2 * i / 24, i / 12, (2 * i + 12) / 24, (i + 6) / 12]])
        regions = Regions(
            12, 24, box, np.asarray([i], np.int32), [None], np.zeros(1, bool), np.asarray([72.0])
        )
        return {
            "key": str(i),
            "label": i,
            "regions": regions,
            "negative": [(i + 1) % COUNT, 0],
            "not_exhaustive": [i],
        }


@pytest.mark.parametrize("grid", [1, 2, 3])
def test_boxes_are_around_what_they_were_around(grid):
    grids = tuple(float(g == grid) for g in (1, 2, 3))
    source = open_mosaics(Squares(), 4, 72, grids)
    for i in range(4):
        found = source[i]
        regions, image = found["regions"], found["image"]
        assert image.shape == (72, 72, 3) and len(regions) == grid * grid
        inside = np.zeros((72, 72), bool)
        for box, label in zip(regions.boxes, regions.labels, strict=True):
            x0, y0, x1, y1 = np.rint(box * 72).astype(int)
            side = 72 // grid
            tile = image[y0 // side * side, x0 // side * side + side - 1]  # its gray, if uncovered
            assert tile[0] in (10 + label, 255)
            edge = 1 + 3 // grid  # blurred by the resize
            middle = image[y0 + edge : y1 - edge, x0 + edge : x1 - edge]
            assert middle.min() > 200
            inside[y0:y1, x0:x1] = True
        assert image[~inside].mean() < 40  # gray, but for the blur of the resize
        assert i % COUNT in regions.labels
        assert regions.areas.sum() == pytest.approx(grid**2 * 72 * (72 / grid) ** 2 / (12 * 24))
        shown = set(regions.labels.tolist())
        assert not shown & set(found["negative"])
        assert set(found["not_exhaustive"]) == shown


def test_mosaics_are_a_pure_function_of_seed_and_index():
    one, two = (open_mosaics(Squares(), 30, 72, seed=3) for _ in range(2))
    other = open_mosaics(Squares(), 30, 72, seed=4)
    sizes = set()
    for i in reversed(range(30)):
        labels = one[i]["regions"].labels
        np.testing.assert_array_equal(labels, two.meta(i)["regions"].labels)
        assert "image" not in two.meta(i)
        sizes.add(len(labels))
    assert sizes == {1, 4, 9}
    assert any(len(one.meta(i)["regions"]) != len(other.meta(i)["regions"]) for i in range(30))
    with pytest.raises(IndexError):
        one[30]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "0 mosaics of 5 images"),
        ({"grids": (0.5, 0.4)}, r"\(0.5, 0.4\): they must add up to 1"),
        ({"size": 70}, "70 pixels has no 3 equal tiles in a row: make size a multiple of 6"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        open_mosaics(Squares(), **{"length": 4, "size": 72, **settings})


def test_names_that_do_not_occur_are_removed():
    class Some(Squares):
        def __len__(self):
            return 2

        def meta(self, i):
            return super().meta(3 if i == 0 else 1)

    source = open_occurring(Some())
    assert source.class_names == ["name 1", "name 3"]
    assert [source.meta(i)["label"] for i in range(2)] == [1, 0]
    assert source.meta(0)["regions"].labels.tolist() == [1]
    with pytest.raises(ValueError, match="needs the setting 'source'"):
        open_source({"kind": "occurring"})


def test_a_source_without_names_has_none_that_occur():
    nameless = Squares()
    nameless.class_names = None
    with pytest.raises(ValueError, match="squares has no class names"):
        open_occurring(nameless)
