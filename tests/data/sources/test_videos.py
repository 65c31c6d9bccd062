"""Folders and shards of videos: as files, as animations, and as folders of frames."""

import io
import json
import tarfile

import clips
import numpy as np
import pytest

from mmjax.data.open_source import open_source
from mmjax.data.transforms import parse as transforms


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_frames(folder, video):
    for i, data in enumerate(clips.images(video)):
        write(folder / f"{i + 8}.png", data)  # 8, 9, 10: not in the order of text


def opened(tmp_path, **settings):
    settings = {"kind": "videos", "root": str(tmp_path / "set")} | settings
    return open_source({**settings, "data_dir": str(tmp_path / "cache")}, workdir=tmp_path)


def test_classes_of_files_animations_and_folders_of_frames(tmp_path):
    video, root = clips.frames(6), tmp_path / "set"
    write(root / "run" / "a.mp4", clips.encoded(video))
    write(root / "run" / "b.gif", clips.animated(video, "GIF", 50))
    write_frames(root / "walk" / "c", video)
    source = opened(tmp_path, frame_rate=3.0)
    assert source.class_names == ["run", "walk"]
    assert [source.meta(i) for i in range(3)] == [
        {"key": "run/a.mp4", "label": 0},
        {"key": "run/b.gif", "label": 0},
        {"key": "walk/c", "label": 1},
    ]
    run = transforms.parse("middle_frames(2, 3) | label", class_names=source.class_names)
    found = run(source[2], np.random.default_rng(0))
    np.testing.assert_array_equal(found["video"], video[2:4])  # at 3 Hz, as the frames
    for i in range(2):
        assert run(source[i], np.random.default_rng(0))["video_mask"][0]


def test_captions_of_videos(tmp_path):
    root = tmp_path / "set"
    write(root / "x" / "a.webp", clips.animated(clips.frames(3), "WEBP", 50))
    write_frames(root / "b", clips.frames(4))
    rows = [{"video": "x/a.webp", "caption": "a bar"}, {"video": "b", "caption": "blocks"}]
    write(root / "captions.jsonl", "\n".join(map(json.dumps, rows)).encode())
    source = opened(tmp_path)
    assert [source.meta(i)["captions"] for i in range(2)] == [["a bar"], ["blocks"]]
    assert len(source[1]["video"]) == 4


def test_bad_videos_are_listed_and_counted(tmp_path):
    root = tmp_path / "set"
    write(root / "a" / "good.gif", clips.animated(clips.frames(3), "GIF", 50))
    write(root / "a" / "bad.mp4", b"not a video")
    write(root / "a" / "sound.mp4", clips.only_sound())
    with pytest.raises(ValueError, match="2 bad records of 3, .* 2 unreadable videos"):
        opened(tmp_path)
    assert len(opened(tmp_path, max_bad_records=2)) == 1
    listed = (tmp_path / "bad_records.jsonl").read_text()
    assert "no video that FFmpeg reads" in listed and "no video, only audio" in listed
    with pytest.raises(ValueError, match="There is no folder .*: set root to the folder of the"):
        opened(tmp_path, root=str(tmp_path / "none"))
    (root / "empty").mkdir()
    with pytest.raises(ValueError, match="nor videos in subfolders by class.* none in empty"):
        opened(tmp_path)


def test_shards_of_videos(tmp_path):
    video = clips.encoded(clips.frames(6), "webm", "libvpx")
    files = {"000.webm": video, "000.txt": b"a bar", "001.gif": b"GIF89a", "001.txt": b"bad"}
    files |= {"002.jpg": b"", "002.txt": b"no video"}
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    settings = {"kind": "webdataset", "pattern": str(tmp_path / "*.tar"), "media": "video"}
    settings |= {"data_dir": str(tmp_path / "cache"), "max_bad_records": 2}
    source = open_source(settings, workdir=tmp_path)
    assert source.meta(0) == {"key": "000", "captions": ["a bar"]} and len(source) == 1
    assert source[0]["video"] == video
    listed = (tmp_path / "bad_records.jsonl").read_text()
    assert "unreadable_video" in listed and "0.tar has no video for it, only jpg, txt" in listed
    with pytest.raises(ValueError, match="is 'films'; use 'image' or 'video'"):
        open_source(settings | {"media": "films"}, workdir=tmp_path)
