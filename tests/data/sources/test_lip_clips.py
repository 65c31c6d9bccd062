"""Two clips in the layouts of GRID and LRS, as folders of images and as video files."""

import io
import sys

import numpy as np
import pytest
from digits import wav
from PIL import Image

from mmjax.data.open_source import open_source
from mmjax.data.transforms import parse as transforms
from mmjax.data.transforms import video_ops
from mmjax.data.transforms.audio_ops import decode_audio

TONE = 9000 * np.sin(np.arange(8000) / 5)  # 1 s at 8 kHz
ALIGN = (
    "0 5000 sil\n5000 9000 bin\n9000 12000 blue\n12000 13000 sp\n13000 20000 now\n20000 25000 sil\n"
)


def frames(seed, count=12):
    """Smooth frames that brighten from one to the next."""
    rng = np.random.default_rng(seed)
    base = np.asarray(Image.fromarray(rng.integers(0, 90, (4, 6, 3), np.uint8)).resize((48, 32)))
    return np.stack([base + np.uint8(10 * i) for i in range(count)])


def write_images(folder, video):
    folder.mkdir(parents=True)
    for i, frame in enumerate(video):
        Image.fromarray(frame).save(folder / f"{i + 8}.png")  # 8, 9, 10: not in the order of text


def write_video(path, video, sound=TONE, rate=25):
    av = pytest.importorskip("av", reason="needs the extra mmjax[video]")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=rate)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 32, 48, "yuv420p", 2_000_000
        audio = file.add_stream("aac", rate=8000, layout="mono")
        for image in video:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode(None))
        block = np.float32(sound / 32768)[None]
        for start in range(0, block.shape[1], 1000):
            part = np.ascontiguousarray(block[:, start : start + 1000])
            one = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            one.sample_rate, one.pts = 8000, start
            file.mux(audio.encode(one))
        file.mux(audio.encode(None))


def grid(root, write):
    for number, (speaker, clip) in enumerate((("s1", "bbaf2n"), ("s2", "lwws3a"))):
        write(root / speaker / clip, frames(number))
        (root / speaker / "align").mkdir()
        (root / speaker / "align" / f"{clip}.align").write_text(ALIGN)
        (root / "audio" / speaker).mkdir(parents=True)
        (root / "audio" / speaker / f"{clip}.wav").write_bytes(wav(TONE))


def lrs(root, write):
    for number, clip in enumerate(("00001", "00002")):
        write(root / "6330311066473698535" / clip, frames(number))
        text = (
            f"Text:  HELLO NUMBER {number}\nConf:  4\n\nWORD START END ASDSCORE\nHELLO 0.1 0.3 9\n"
        )
        path = root / "6330311066473698535" / f"{clip}.txt"
        path.write_text(text)
        path.with_suffix(".wav").write_bytes(wav(TONE))


def opened(root, layout, **settings):
    return open_source({"kind": "lip_clips", "root": str(root), "layout": layout, **settings})


def test_grid_as_images(tmp_path):
    grid(tmp_path, write_images)
    source = opened(tmp_path, "grid")
    assert len(source) == 2
    assert source.meta(1) == {"captions": ["bin blue now"], "key": "s2/lwws3a"}
    row = transforms.parse("decode_video(16, 24) | sound(8000) | speech_mel(128, 20, rate=8000)")(
        source[0], None
    )
    assert row["video"].shape == (16, 24, 24, 3) and row["video_mask"].sum() == 12
    assert row["audio_mask"].sum() == 100 and row["audio"].shape == (128, 20)
    want = video_ops.resize(frames(0), 24)
    np.testing.assert_array_equal(row["video"][:12], want)
    assert len(opened(tmp_path, "grid", speakers=("s2",))) == 1
    with pytest.raises(ValueError, match="has no speaker 's9'; it has s1, s2"):
        opened(tmp_path, "grid", speakers=("s9",))


def test_lrs_as_images(tmp_path):
    lrs(tmp_path, write_images)
    source = opened(tmp_path, "lrs")
    assert [source.meta(i)["captions"] for i in range(2)] == [
        ["hello number 0"],
        ["hello number 1"],
    ]
    example = source[1]
    assert example["key"] == "6330311066473698535/00002" and len(example["video"]) == 12
    box = transforms.parse("decode_video(12, 24, box=(0.5, 0, 1, 1))")(example, None)["video"]
    np.testing.assert_array_equal(box, video_ops.resize(frames(1)[:, :, 24:], 24))


def test_video_files_with_their_own_sound(tmp_path):
    lrs(tmp_path, lambda path, video: write_video(path.with_suffix(".mp4"), video))
    for path in tmp_path.rglob("*.wav"):
        path.unlink()
    example = opened(tmp_path, "lrs")[1]
    video = video_ops.read_video(example["video"])
    assert video.shape == (12, 32, 48, 3)
    assert np.abs(video.astype(float) - frames(1)).mean() < 12  # lossy
    sound, rate = decode_audio(example["audio"])
    assert rate == 8000 and abs(len(sound) - 8000) < 2100  # AAC pads
    assert 0.1 < np.abs(sound).max() < 0.5


def test_another_frame_rate_keeps_the_time(tmp_path):
    write_video(tmp_path / "a.mp4", frames(0, 12), rate=50)
    video = video_ops.read_video((tmp_path / "a.mp4").read_bytes())
    assert len(video) == 6
    assert np.abs(video.astype(float) - frames(0, 12)[1::2]).mean() < 12


def test_without_av_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    for read in (video_ops.read_video, video_ops.read_sound):
        with pytest.raises(ValueError, match=r"need the package av: pip install 'mmjax\[video\]'"):
            read(b"....ftyp")


def test_what_is_no_clip_is_refused(tmp_path):
    grid(tmp_path, write_images)
    align = tmp_path / "s1" / "align" / "bbaf2n.align"
    align.write_text("0 5000\n")
    with pytest.raises(
        ValueError, match="bbaf2n.align has the line '0 5000', not 'begin end word'"
    ):
        opened(tmp_path, "grid")
    align.unlink()
    with pytest.raises(ValueError, match=r"bbaf2n has no words: expected .*align/bbaf2n.align"):
        opened(tmp_path, "grid")
    with pytest.raises(ValueError, match="layout of lip clips is 'lrw'; use one of grid, lrs"):
        opened(tmp_path, "lrw")
    with pytest.raises(ValueError, match=r"lwws3a has no words: expected .*lwws3a.txt"):
        opened(tmp_path, "lrs", speakers=("s2",))
    with pytest.raises(ValueError, match="has no clips: videos"):
        (tmp_path / "empty" / "s1").mkdir(parents=True)
        opened(tmp_path / "empty", "grid")
    small, large = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 8)).save(small, "PNG")
    Image.new("RGB", (9, 8)).save(large, "PNG")
    with pytest.raises(ValueError, match="frames have several sizes"):
        video_ops.read_video([small.getvalue(), large.getvalue()])
    with pytest.raises(ValueError, match="box is .* with x0 < x1"):
        video_ops.crop(frames(0), (0.5, 0, 0.5, 1))
    for nothing in (None, b"", []):
        with pytest.raises(ValueError, match="the video has no frames"):
            video_ops.read_video(nothing)
