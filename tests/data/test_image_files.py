"""Which files are images, which may be decoded, and that they stream."""

import io
import os
import time

import pytest
from PIL import Image
from png import png

from mmjax.data.image_files import check_image, find, stream
from mmjax.data.transforms.decode import image_suffixes

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


def encoded(kind, size=(20, 10)):
    file = io.BytesIO()
    Image.new("RGB", size, (9, 80, 200)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA"])
def test_usual_pictures_pass(kind):
    check_image(encoded(kind))


@pytest.mark.parametrize(
    "data, said",
    [
        (b"", "0 bytes"),
        (b"GIF89a", "are no image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "are no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "are no image"),
        (encoded("EPS"), "are no image"),
        (encoded("PDF"), "are no image"),
        (b"\xff\xd8\xff", "are no image"),
        (png(1, 1), "has 1 x 1 pixels: each side needs 4"),
        (png(4, 400), "at most 50 times"),
        (png(10_000, 10_000, b""), "has 10000 x 10000 pixels; the maximum is 64,000,000"),
        (png(2**31 - 1, 2**31 - 1, b""), "pixels: make it smaller than 64,000,000"),
    ],
)
def test_what_should_not_be_decoded_is_refused_by_its_header(data, said):
    with pytest.raises(ValueError, match=said):
        check_image(data)


def test_folders_are_searched_and_links_do_not_lead_out(tmp_path, caplog):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("b.png", "a.JPG", "deep/c.webp", "notes.txt"):
        (tmp_path / "in" / name).write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"x")
    os.symlink(tmp_path / "secret.png", tmp_path / "in" / "link.png")
    os.symlink(tmp_path / "nowhere.png", tmp_path / "in" / "broken.png")
    os.symlink("b.png", tmp_path / "in" / "inside.png")
    names = [str(p.relative_to(tmp_path / "in")) for p in find([tmp_path / "in"])]
    assert names == ["a.JPG", "b.png", "deep/c.webp", "inside.png"]
    given = [tmp_path / "in" / "notes.txt", tmp_path / "in" / "b.png", tmp_path / "in"]
    assert len(find(given)) == 5  # a file that is given is taken as it is, and each once
    assert "2 links out of the folder" in caplog.text and "1 .txt" in caplog.text
    with pytest.raises(ValueError, match="There is no file or folder"):
        find([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "1.svg").write_bytes(b"x")
    with pytest.raises(ValueError, match="has no images below it .* skipped: 1 .svg"):
        find([tmp_path / "empty"])
    assert ".eps" not in image_suffixes() and ".pdf" not in image_suffixes()


def test_hidden_files_and_folders_are_skipped_and_said(tmp_path, caplog):
    for name in (".thumbs/a.png", "__MACOSX/a.png", "b/._c.png", "b/c.png", "b/d.tif", "b/e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert find([tmp_path]) == [tmp_path / "b" / "c.png", tmp_path / "b" / "d.tif"]
    assert caplog.messages == [
        f"{tmp_path}: skipped 1 .txt (no image formats that are read), 1 folders '.thumbs', "
        "1 folders '__MACOSX', 1 hidden files"
    ]


def test_a_stream_keeps_order_names_faults_and_reads_little_ahead():
    started = []

    def work(n):
        started.append(n)
        time.sleep(0.001 * (n % 3))
        if n % 10 == 4:
            raise ValueError(f"{n} is bad")
        if n % 10 == 5:
            raise FileNotFoundError(2, "No such file", "x")
        return n * n

    read = stream(work, range(5000))
    first = [next(read) for _ in range(20)]
    assert [item for item, _ in first] == list(range(20))
    assert first[3] == (3, 9) and str(first[4][1]) == "4 is bad"
    assert isinstance(first[5][1], ValueError) and "No such file" in str(first[5][1])
    assert len(started) < 20 + 33 * (os.cpu_count() or 1)
    read.close()
