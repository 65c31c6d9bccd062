"""Annotation files of COCO and LVIS."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from mmjax.data import rle
from mmjax.data.convert import convert
from mmjax.data.open_source import open_source
from mmjax.data.transforms.parse import parse
from mmjax.run.experiment import texts_of


def annotation(number, image=1, category=3, box=(2, 3, 10, 8), **more):
    given = {"id": number, "image_id": image, "category_id": category, "bbox": list(box)}
    return given | {"area": 50.0, "iscrowd": 0} | more


def written(tmp_path, annotations=(), **more):
    """Two images of 40 x 30 pixels, classes 3 and 7; the config of their source."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 30), "gray").save(tmp_path / name)
    data = {
        "images": [
            {"id": 1, "file_name": "a.png", "height": 30, "width": 40},
            {"id": 2, "file_name": "b.png", "height": 30, "width": 40},
        ],
        "annotations": list(annotations),
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    } | more
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(data))
    return {"kind": "coco", "annotations": str(path), "images": str(tmp_path)}


def test_boxes_masks_and_classes(tmp_path):
    mask = np.zeros((30, 40), bool)
    mask[3:11, 2:12] = True
    counts = rle.encode(mask)
    annotations = [
        annotation(1, segmentation=[[2, 3, 12, 3, 12, 11, 2, 11]]),
        annotation(2, category=7, segmentation={"size": [30, 40], "counts": rle.to_string(counts)}),
        annotation(3, iscrowd=1, segmentation={"size": [30, 40], "counts": counts.counts.tolist()}),
        annotation(4, image=2),
    ]
    source = open_source(written(tmp_path, annotations), workdir=tmp_path)
    assert len(source) == 2 and source.class_names == ["cat", "dog"]
    found = source.meta(0)["regions"]
    assert found.labels.tolist() == [1, 0, 1] and found.crowd.tolist() == [False, False, True]
    np.testing.assert_allclose(found.boxes * [40, 30, 40, 30], [[2, 3, 12, 11]] * 3)
    assert all(np.array_equal(rle.decode(found.mask(i)), mask) for i in range(3))
    out = parse("decode | resize((60, 80)) | regions(4, masks=True)")(source[0], None)
    assert out["masks"].sum((1, 2)).tolist() == [320, 320, 0, 0]
    assert source.meta(1)["key"] == "b.png" and "negative" not in source.meta(1)
    with pytest.raises(ValueError, match="has a box and no mask"):
        source.meta(1)["regions"].mask(0)


@pytest.mark.parametrize("name", ["../secret.png", "sub/../../secret.png", "/{root}/secret.png"])
def test_a_file_name_that_leads_out_of_the_folder_is_refused(name, tmp_path):
    """The file is there, and would be an example of whoever wrote the annotations."""
    inner = tmp_path / "images"
    inner.mkdir()
    config = written(inner)
    Image.new("RGB", (40, 30)).save(tmp_path / "secret.png")
    name = name.replace("/{root}", str(tmp_path))
    images = [{"id": 1, "file_name": name, "height": 30, "width": 40}]
    how = "set root to a folder that all" if name.startswith("/") else "name files below it"
    with pytest.raises(ValueError, match=f"'{name}' leads out of the folder {inner}: {how}"):
        open_source(written(inner, images=images), workdir=tmp_path)
    rows = [{"file_name": "a.png", "caption": "a"}, {"file_name": name, "caption": "b"}]
    for kind in ("folder", "recordings"):
        (inner / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(ValueError, match="leads out of the folder"):
            open_source({"kind": kind, "root": str(inner)}, workdir=tmp_path)
    inside = [{"id": 1, "file_name": "sub/../a.png", "height": 30, "width": 40}]
    (inner / "sub").mkdir()
    assert len(open_source({**config, **written(inner, images=inside)}, workdir=tmp_path)) == 1


@pytest.mark.parametrize("given", [[[3]], [{"id": 3}], 3, "3", {"3": 1}])
def test_negative_categories_that_are_no_list_of_ids_are_named(given, tmp_path):
    image = {"id": 1, "file_name": "a.png", "height": 30, "width": 40, "neg_category_ids": given}
    with pytest.raises(ValueError, match="in neg_category_ids of a.png|as neg_category_ids of"):
        open_source(written(tmp_path, images=[image]), workdir=tmp_path)


def test_numbers_that_are_no_pixels_are_refused(tmp_path):
    """Whole numbers of JSON have any length, and a size needs no pixels to be claimed."""
    source = written(tmp_path, [annotation(1, box=(10**400, 0, 1, 1))])
    with pytest.raises(ValueError, match="annotation 1 of a.png has the box"):
        open_source(source, workdir=tmp_path)
    image = {"id": 1, "file_name": "a.png", "height": 10**8, "width": 10**8}
    with pytest.raises(ValueError, match="of more than 64,000,000 pixels"):
        open_source(written(tmp_path, images=[image]), workdir=tmp_path)


def test_names_of_lvis_are_texts(tmp_path):
    """A query is "a photo of a sports car"; a name of COCO stays as it is."""
    classes = [{"id": 3, "name": "sports_car", "frequency": "r"}]
    classes += [{"id": 7, "name": "bow_(decorative_ribbons)", "synset": "bow.n.08"}]
    source = open_source(written(tmp_path, categories=classes), workdir=tmp_path)
    assert source.class_names == ["sports car", "bow (decorative ribbons)"]
    classes = [{"id": 3, "name": "my_class"}, {"id": 7, "name": "b"}]
    source = open_source(written(tmp_path, categories=classes), workdir=tmp_path)
    assert source.class_names == ["my_class", "b"]


def test_lvis_says_which_classes_were_looked_for(tmp_path):
    image = {"id": 5, "coco_url": "http://images.cocodataset.org/val/c.png"}
    image |= {"height": 30, "width": 40, "neg_category_ids": [3]}
    (tmp_path / "val").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "val" / "c.png")
    classes = [{"id": i, "name": f"n{i}", "frequency": "r"} for i in (1, 3)]
    images = [image | {"not_exhaustive_category_ids": [1]}]
    source = open_source(written(tmp_path, images=images, categories=classes), workdir=tmp_path)
    assert source.frequency == ["r", "r"]
    meta = source.meta(0)
    assert (meta["negative"], meta["not_exhaustive"]) == ([1], [0])
    assert meta["key"] == "val/c.png"


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (
            annotation(9, category=4),
            "9 of a.png is of the category 4, which has no name",
        ),
        (annotation(9, box=(1, 1, 0, 5)), r"has the empty box \[1, 1, 0, 5\]"),
        (annotation(9, box=(50, 1, 5, 5)), "outside the image of 40x30"),
        (annotation(9, box=(1, 2)), "a box is x, y, width, height"),
        (annotation(9, image=4), "annotation 9 is of the image 4, which is not listed"),
        (annotation(9, segmentation=[[1, 1, 2, 2]]), "polygon of fewer than three points"),
        (
            annotation(9, segmentation={"size": [40, 30], "counts": "0"}),
            r"a mask of \[40, 30\], and its image is \[30, 40\]",
        ),
        (annotation(9, box=("1", "2", "3", "4")), "a box is x, y, width, height"),
        (annotation(9, box=(1, 1, float("nan"), 5)), "has the empty box"),
        (annotation(9, segmentation=5), "has the segmentation 5, and it is RLE or a list"),
        (
            annotation(9, segmentation={"size": [30, 40], "counts": [0, 3]}),
            "a mask that cannot be read: an RLE has 3 pixels",
        ),
        (annotation(9, segmentation={"size": 3, "counts": [1200]}), "has a mask of 3, and its"),
        (annotation(9, segmentation=[[1, 2, 1e9, 4, 5, 6]]), "points are far away or no numbers"),
        (annotation(9, segmentation=[list("abcdef")]), "points are far away or no numbers"),
        (annotation(9, area=float("nan")), "has the area nan: give its pixels"),
        (annotation(9, iscrowd="no"), "has iscrowd 'no', which is 0 or 1"),
    ],
)
def test_bad_annotations_are_listed_or_refused(tmp_path, annotation, message):
    config = written(tmp_path, [annotation])
    with pytest.raises(ValueError, match=message):
        open_source(config, workdir=tmp_path)
    source = open_source(config | {"max_bad_records": 1}, workdir=tmp_path)
    assert len(source.meta(0)["regions"]) == 0
    assert "bad_region" in (tmp_path / "bad_records.jsonl").read_text()


def test_missing_images_and_wrong_files_are_refused(tmp_path):
    config = written(tmp_path, [annotation(1)])
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match="1 records whose file is missing; the first is 'a.png'"):
        open_source(config, workdir=tmp_path)
    assert len(open_source(config | {"max_bad_records": 1}, workdir=tmp_path)) == 1
    Image.new("RGB", (30, 40)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="30x40 pixels, and its annotations are of .* 40x30"):
        open_source(config, workdir=tmp_path)[0]
    with pytest.raises(ValueError, match="There is no folder"):
        open_source(config | {"images": str(tmp_path / "no")}, workdir=tmp_path)
    image = {"id": 1, "file_name": "a.png", "height": 30, "width": 40}
    for more, message in (
        ({"categories": [{"id": 1}]}, "has the category {'id': 1}: give it an id and a name"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "two categories"),
        ({"images": {}}, "has no list 'images'"),
        ({"images": [{"id": 1, "height": 3, "width": 3}]}, "an image without file_name"),
        ({"images": []}, "no usable image"),
        ({"images": [image, image]}, "two images of the id 1"),
        ({"images": [image | {"height": "30"}]}, "height and width are whole numbers"),
        ({"images": [image | {"file_name": 3}]}, "file_name is text"),
        ({"images": [3]}, "has 3 among its images"),
        ({"annotations": [{"image_id": [1]}]}, r"has {'image_id': \[1\]} among its annotations"),
        (
            {"images": [image | {"neg_category_ids": [9]}]},
            "neg_category_ids of a.png the category 9",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            open_source(written(tmp_path, **more), workdir=tmp_path)
    (tmp_path / "instances.json").write_text("[")
    with pytest.raises(ValueError, match="is no JSON"):
        open_source(config, workdir=tmp_path)


def test_sizes_are_those_of_a_photograph_as_it_is_shown(tmp_path):
    images = [{"id": 1, "file_name": "a.jpg", "height": 30, "width": 40}]
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=turned)
    source = open_source(written(tmp_path, images=images), workdir=tmp_path)
    with pytest.raises(ValueError, match="30x40 pixels, and its annotations are"):
        source[0]
    Image.new("RGB", (30, 40)).save(tmp_path / "a.jpg", exif=turned)
    shown = parse("decode")(source[0], np.random.default_rng(0))["image"]
    assert np.asarray(shown).shape == (30, 40, 3)


def test_a_tokenizer_is_trained_on_the_names_of_regions(tmp_path):
    config = written(tmp_path, [annotation(1), annotation(2, image=2, category=7)])
    for source in (config, {"kind": "part", "source": config, "stop": 1.0}):
        assert sorted(texts_of(open_source(source))) == ["cat", "dog"]


def test_images_are_read_as_bytes(tmp_path):
    source = open_source(written(tmp_path), workdir=tmp_path)
    assert Image.open(io.BytesIO(source[1]["image"])).size == (40, 30)


def test_a_converted_set_has_the_same_regions(tmp_path):
    annotations = [annotation(1, segmentation=[[2, 3, 12, 3, 12, 11, 2, 11]]), annotation(2)]
    config = written(tmp_path, annotations)
    convert(config, tmp_path / "small", size=15, quality=None)
    small = open_source({"kind": "array_record", "root": str(tmp_path / "small")})
    before, after = open_source(config, workdir=tmp_path)[0], small[0]
    assert after["image"].shape == (15, 20, 3) and small.class_names == ["cat", "dog"]
    step = parse("decode | resize((15, 20)) | regions(3)")
    for key in ("boxes", "boxes_mask", "box_label", "frame"):
        assert np.array_equal(step(before, None)[key], step(after, None)[key])
    masks = [e["regions"].mask(0) for e in (before, after)]
    assert np.array_equal(rle.decode(masks[0]), rle.decode(masks[1]))
    assert after["regions"].segments[1] is None
