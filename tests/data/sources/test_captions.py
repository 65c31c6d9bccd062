"""Caption files in the layouts in which they are published, and what is wrong with some of them.

Where a test says pandas, its right values are those of pandas 3.1.1's `read_csv` of the same text.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from flowers import picture

from mmjax.data.open_source import open_source
from mmjax.data.sources.captions import read_captions


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMJAX_DATA_DIR", str(tmp_path / "cache"))


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def write_images(folder, names):
    for i, name in enumerate(names):
        put(Path(folder, name), picture((i, 0, 0), "JPEG" if name.endswith("jpg") else "PNG"))


def found(path, **settings):
    """{image: captions} and {place or image: (kind, reason)}."""
    records, bad = read_captions(path, **settings)
    return {r["key"]: r["captions"] for r in records}, {b.key: (b.kind, b.reason) for b in bad}


def opened(root, **settings):
    source = open_source({"kind": "folder", "root": str(root), **settings})
    for i in range(len(source)):
        assert source[i]["image"] == (root / source[i]["key"]).read_bytes()
    return {source.meta(i)["key"]: source.meta(i)["captions"] for i in range(len(source))}


# ---------------------------------------------------------------- published layouts

DOG, GIRL = "1000268201_693b08cb0e.jpg", "1001773457_577c3a7d70.jpg"
# What the two images' captions are, in each layout below.
CAPTIONS = {
    DOG: ["A child in a pink dress .", "A girl going into a wooden building ."],
    GIRL: ['A black dog, and "Spot" .', "Two dogs\u2028on pavement ."],
}
FLICKR8K_TOKEN = (
    f"{DOG}#0\t{CAPTIONS[DOG][0]}\n{DOG}#1\t{CAPTIONS[DOG][1]}\n"
    f"{GIRL}#0\t{CAPTIONS[GIRL][0]}\n{GIRL}#1\t{CAPTIONS[GIRL][1]}\n"
)
FLICKR8K_CSV = (
    f"image,caption\n{DOG},{CAPTIONS[DOG][0]}\n{DOG},{CAPTIONS[DOG][1]}\n"
    f'{GIRL},"A black dog, and ""Spot"" ."\n{GIRL},{CAPTIONS[GIRL][1]}\n'
)
FLICKR8K_PIPE = (
    f"image|caption\n{DOG}|{CAPTIONS[DOG][0]}\n{DOG}|{CAPTIONS[DOG][1]}\n"
    f"{GIRL}|{CAPTIONS[GIRL][0]}\n{GIRL}|{CAPTIONS[GIRL][1]}\n"
)
FLICKR30K_CSV = (
    f"image_name| comment_number| comment\n{DOG}| 0| {CAPTIONS[DOG][0]}\n"
    f"{DOG}| 1| {CAPTIONS[DOG][1]}\n{GIRL}| 0| {CAPTIONS[GIRL][0]}\n"
    f"{GIRL}| 1| {CAPTIONS[GIRL][1]}\n"
)
COCO = json.dumps(
    {
        "info": {"year": 2017},
        "licenses": [],
        "images": [
            {"id": 9, "file_name": GIRL, "height": 4, "width": 6},
            {"id": 4, "file_name": DOG, "height": 4, "width": 6},
        ],
        # COCO's annotations are not sorted by image.
        "annotations": [
            {"image_id": 4, "id": 1, "caption": CAPTIONS[DOG][0]},
            {"image_id": 9, "id": 2, "caption": CAPTIONS[GIRL][0]},
            {"image_id": 9, "id": 3, "caption": CAPTIONS[GIRL][1]},
            {"image_id": 4, "id": 7, "caption": CAPTIONS[DOG][1] + "\n"},
        ],
    }
)
OPEN_CLIP = f'filepath\ttitle\n{DOG}\t{CAPTIONS[DOG][0]}\n{GIRL}\t"A black dog, and ""Spot"" ."\n'

# (folder of the images, caption file, its text, the settings besides root), as in each archive
LAYOUTS = {
    "flickr8k token": ("Images", "Flickr8k.token.txt", FLICKR8K_TOKEN, {"captions": None}),
    "flickr8k csv": ("Images", "captions.txt", FLICKR8K_CSV, {"multiple_captions": True}),
    "flickr8k pipe": (".", "captions.txt", FLICKR8K_PIPE, {"multiple_captions": True}),
    "flickr30k": ("flickr30k_images", "results.csv", FLICKR30K_CSV, {"captions": None}),
    "flickr30k token": (".", "results_20130124.token", FLICKR8K_TOKEN, {"captions": None}),
    "coco": ("val2017", "annotations/captions_val2017.json", COCO, {"captions": None}),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("change", [str, lambda text: "\ufeff" + text.replace("\n", "\r\n")])
def test_published_layouts_need_one_setting_at_most(tmp_path, name, change):
    images, file, text, settings = LAYOUTS[name]
    write_images(tmp_path / "set" / images, CAPTIONS)
    put(tmp_path / "set" / file, text if name == "coco" else change(text))
    settings = {"captions": file} if "captions" in settings else settings
    assert len(settings) <= 1
    wanted = {str(Path(images, key)): texts for key, texts in CAPTIONS.items()}
    assert opened(tmp_path / "set", **settings) == wanted


def test_open_clip_needs_no_setting_but_the_file(tmp_path):
    write_images(tmp_path, CAPTIONS)
    put(tmp_path / "train.csv", OPEN_CLIP)
    assert opened(tmp_path, captions="train.csv") == {k: t[:1] for k, t in CAPTIONS.items()}
    put(tmp_path / "captions.tsv", OPEN_CLIP.replace(DOG, str(tmp_path / DOG)))
    assert (
        opened(tmp_path)
        == {
            str(tmp_path / DOG): CAPTIONS[DOG][:1],  # its paths may be absolute
            GIRL: CAPTIONS[GIRL][:1],
        }
    )


def test_the_images_may_be_in_one_subfolder_but_not_in_two(tmp_path):
    write_images(tmp_path / "small", CAPTIONS)
    put(tmp_path / "t.token", FLICKR8K_TOKEN)
    assert set(opened(tmp_path, captions="t.token")) == {f"small/{key}" for key in CAPTIONS}
    write_images(tmp_path / "large", CAPTIONS)
    with pytest.raises(
        ValueError, match="in several folders below .*: (large, small|small, large);"
    ):
        opened(tmp_path, captions="t.token")
    wanted = opened(tmp_path / "small", captions=str(tmp_path / "t.token"))
    assert wanted == opened(tmp_path / "small", captions="../t.token") == CAPTIONS


def test_known_faults_of_the_published_files(tmp_path):
    """A row of Flickr30k's results.csv lacks a separator; an image of Flickr8k is no file."""
    row = f"{GIRL}| 2   A dog runs across the grass .\n"
    captions, bad = found(put(tmp_path / "results.csv", FLICKR30K_CSV + row))
    assert captions == CAPTIONS
    assert bad == {"line 6": ("bad_row", "results.csv, line 6, has 2 fields, the header 3")}
    write_images(tmp_path, CAPTIONS)
    put(tmp_path / "a.token", FLICKR8K_TOKEN + "2258277193_586949ec62.jpg.1#0\tpeople\nx.jpg\n")
    _, bad = found(tmp_path / "a.token")
    assert bad["line 6"][0] == "bad_row" and "image#number<tab>caption" in bad["line 6"][1]
    assert opened(tmp_path, captions="a.token", max_bad_records=2) == CAPTIONS
    names = [json.loads(x) for x in (tmp_path / "cache" / "bad_records.jsonl").open()]
    assert {x["key"]: x["kind"] for x in names} == {
        "line 6": "bad_row",
        "2258277193_586949ec62.jpg.1": "missing_file",
    }


def test_faults_of_coco_files(tmp_path):
    content = json.loads(COCO)
    content["images"].append({"id": 5, "file_name": "bare.jpg"})
    content["annotations"].append({"image_id": 77, "id": 8, "caption": "of no image"})
    captions, bad = found(put(tmp_path / "c.json", json.dumps(content)))
    assert captions == CAPTIONS
    assert {k: kind for k, (kind, _) in bad.items()} == {
        "annotation 5": "missing_file",
        "bare.jpg": "missing_caption",
    }
    boxes = {**content, "annotations": [{"image_id": 9, "bbox": [0, 0, 1, 1]}]}
    with pytest.raises(ValueError, match=r"no 'caption': set captions to COCO's captions_\*.json"):
        found(put(tmp_path / "c.json", json.dumps(boxes)))
    for other in ({"a": 1}, {"images": [3], "annotations": []}, "text", 5):
        with pytest.raises(ValueError, match=r"c.json must be a list of JSON objects, or COCO's"):
            found(put(tmp_path / "c.json", json.dumps(other)))
    with pytest.raises(ValueError, match="c.json is not JSON"):
        found(put(tmp_path / "c.json", COCO[:-2]))


def test_a_json_list_and_lists_of_captions(tmp_path):
    rows = [{"image": "1.png", "caption": ["a", " b "]}, {"image": "2.png", "caption": "c"}]
    path = put(tmp_path / "c.json", "\ufeff" + json.dumps(rows))
    assert found(path) == ({"1.png": ["a", "b"], "2.png": ["c"]}, {})
    lines = [*rows, {"image": "1.png", "caption": "d"}]
    path = put(tmp_path / "c.jsonl", "\ufeff" + "\r\n".join(map(json.dumps, lines)))
    assert found(path, multiple_captions=True)[0] == {"1.png": ["a", "b", "d"], "2.png": ["c"]}


# ---------------------------------------------------------------- how a table is split

TABLE = (
    'image,caption\n1.png,"a dog, running"\n2.png,a 12" pizza\n3.png,"say ""hi"""\n\n'
    '4.png,"two\nlines, one"\n5.png,\u2028x\n'
)
# pandas, and also with another separator that no field has
SPLIT = {
    "1.png": ["a dog, running"],
    "2.png": ['a 12" pizza'],
    "3.png": ['say "hi"'],
    "4.png": ["two\nlines, one"],
    "5.png": ["x"],  # stripped, as all captions are
}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["c.csv", "c.tsv", "C.TXT"])
def test_fields_are_split_as_pandas_splits_them(tmp_path, end, name):
    text = TABLE.replace("\n", end)
    captions, bad = found(put(tmp_path / name, text))
    assert bad == {}
    assert captions == {key: [t.replace("\n", end) for t in v] for key, v in SPLIT.items()}


@pytest.mark.parametrize("separator", ["\t", "|", ";"])
def test_the_header_tells_the_separator(tmp_path, separator):
    path = put(
        tmp_path / "c.csv", f"id{separator}image{separator}text\n1{separator}1.png{separator}a, b"
    )
    assert found(path) == ({"1.png": ["a, b"]}, {})
    assert found(path, image_column="id")[0] == {"1": ["a, b"]}


def test_a_row_that_does_not_fit_is_a_bad_record(tmp_path):
    """pandas refuses the whole file for the row with too many; it fills that with too few."""
    text = TABLE + '6.png,a dog, running\n7.png\n8.png,"a "big" dog"\n,no image\n9.png,\n10.png,ok'
    captions, bad = found(put(tmp_path / "c.csv", text))
    assert captions == SPLIT | {"10.png": ["ok"]}
    assert {key: kind for key, (kind, _) in bad.items()} == {
        "line 9": "bad_row",
        "line 10": "bad_row",
        "line 11": "bad_row",
        "line 12": "missing_file",
        "9.png": "missing_caption",
    }
    assert bad["line 9"][1] == (
        "c.csv, line 9, has 3 fields, the header 2: put a text that contains ',' in quotes"
    )
    assert bad["line 10"][1] == "c.csv, line 10, has 1 fields, the header 2"
    assert "double a quote that is in the text" in bad["line 11"][1]
    # They count against max_bad_records: 5 of 11.
    write_images(tmp_path, [*SPLIT, "10.png"])
    assert len(opened(tmp_path, captions="c.csv", max_bad_records=5)) == 6
    with pytest.raises(
        ValueError, match="5 bad records of 11.*3 rows that do not fit.*line 9, has"
    ):
        opened(tmp_path, captions="c.csv", max_bad_records=4)


@pytest.mark.parametrize(
    "rows",
    [
        '3.png,"a dog\n4.png,a cat\n',  # to the end of the file
        '3.png,"a dog\n4.png,a cat\n5.png,"a bird"\n6.png,x\n',  # to a quote in another row
        '3.png,"a dog\n4.png,a cat"\n5.png,x\n',  # to one that ends a field by chance
        '3.png,"a dog',  # in the last row
    ],
)
@pytest.mark.parametrize("before", ["2.png,a\n", '2.png,"two\nlines"\n', "\n"])
def test_a_quote_that_is_not_closed_is_an_error_with_its_line(tmp_path, rows, before):
    line = 2 + before.count("\n")
    with pytest.raises(ValueError, match=f"c.csv, line {line}, opens a quote that is not closed"):
        found(put(tmp_path / "c.csv", "image,caption\n" + before + rows))


def test_the_quote_may_open_in_a_later_line_of_its_row(tmp_path):
    text = 'image,caption,title\n1.png,"two\nlines","open\n2.png,c,d\n'
    with pytest.raises(ValueError, match="c.csv, line 3, opens a quote"):
        found(put(tmp_path / "c.csv", text))


def test_other_encodings_and_missing_headers_are_named(tmp_path):
    for name in ("c.csv", "c.jsonl", "c.json", "c.token"):
        latin = put(tmp_path / name, "image,caption\n1.png,café".encode("latin-1"))
        with pytest.raises(ValueError, match=f"{name}, line 2, is not UTF-8"):
            found(latin)
        with pytest.raises(ValueError, match=f"{name} is UTF-16"):
            found(put(tmp_path / name, "image,caption".encode("utf-16")))
    with pytest.raises(ValueError, match="columns are 1.png, a dog: set image_column, or put the"):
        found(put(tmp_path / "c.csv", "1.png,a dog\n2.png,a cat\n"))
    with pytest.raises(ValueError, match=r"must end in one of .jsonl, .json, .csv"):
        found(put(tmp_path / "c.xlsx", "x"))


# ---------------------------------------------------------------- several rows per image


@pytest.mark.parametrize("name", ["captions.csv", "captions.jsonl"])
def test_several_rows_per_image_are_recognized(tmp_path, name):
    rows = [("1.png", "a"), ("1.png", "b"), ("2.png", "c"), ("3.png", "d"), ("3.png", "e")]
    if name.endswith("csv"):
        text = "image,caption\n" + "".join(f"{i},{c}\n" for i, c in rows)
    else:
        text = "\n".join(json.dumps({"image": i, "caption": c}) for i, c in rows)
    write_images(tmp_path, ["1.png", "2.png", "3.png"])
    put(tmp_path / name, text)
    line = 3 if name.endswith("csv") else 2
    wanted = (
        rf"rows for 2 of its 3 images \(line {line} names '1.png' again\).*multiple_captions=True"
    )
    with pytest.raises(ValueError, match=wanted):
        opened(tmp_path)
    every = {"1.png": ["a", "b"], "2.png": ["c"], "3.png": ["d", "e"]}
    assert opened(tmp_path, multiple_captions=True) == every
    first = {key: texts[:1] for key, texts in every.items()}
    assert opened(tmp_path, multiple_captions=False, max_bad_records=2) == first


def test_a_few_repeated_or_equal_rows_stay_bad_records(tmp_path):
    rows = [f"{i}.png,x{i}\n" for i in range(5)]
    text = "image,caption\n" + "".join(rows)
    captions, bad = found(put(tmp_path / "c.csv", text + "1.png,again"))
    assert len(captions) == 5 and bad["1.png"][0] == "duplicate_key"
    assert "set multiple_captions=True" in bad["1.png"][1]
    _, bad = found(put(tmp_path / "c.csv", text + "".join(rows)))
    assert {kind for kind, _ in bad.values()} == {"duplicate_key"} and len(bad) == 5


def test_training_draws_one_of_the_captions_by_seed_and_step(tmp_path):
    from mmjax.data.pipeline import train_batches
    from mmjax.data.transforms.parse import parse

    class Letters:
        def rows(self, texts, length):
            text = np.asarray([[ord(t) for t in texts]], np.int32).T
            return text, np.ones((1, 1), bool), np.zeros(1, bool)

        def count(self, texts, truncated):
            pass

    write_images(tmp_path, ["1.png", "2.png"])
    put(tmp_path / "captions.csv", "image,caption\n1.png,a\n1.png,b\n2.png,c\n1.png,d\n2.png,e\n")
    source = open_source({"kind": "folder", "root": str(tmp_path), "multiple_captions": True})
    transform = parse("choose_caption | tokenize(1)", tokenizer=Letters())

    def drawn(start, steps):
        batches = train_batches(source, transform, batch_size=2, seed=3, start_step=start)
        rows = [next(batches) for _ in range(steps)]
        ids, texts = (np.concatenate([row[key] for row in rows]) for key in ("example_id", "text"))
        return list(zip(ids.tolist(), map(chr, texts[:, 0])))

    found = drawn(0, 60)
    assert set(found) == {(0, "a"), (0, "b"), (0, "d"), (1, "c"), (1, "e")}
    assert drawn(20, 10) == found[40:60]  # a resumed run draws the same


def test_an_emoji_that_was_cut_in_half(tmp_path):
    lines = [r'{"image": "1.jpg", "caption": "a smile \ud83d"}']
    lines += [r'{"image": "2.jpg", "caption": "a smile \ud83d\ude00"}']
    records, bad = found(put(tmp_path / "captions.jsonl", "\n".join(lines)))
    assert records == {"2.jpg": ["a smile \U0001f600"]}
    reason = "captions.jsonl, line 1, has half of a surrogate pair, which is no character"
    assert bad == {"1.jpg": ("bad_text", reason)}
