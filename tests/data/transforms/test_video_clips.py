"""Frames of videos by time: beside decoding whole files, and what cannot be read."""

import struct

import clips
import numpy as np
import pytest

from mmjax.data.transforms import video_clips, video_ops
from mmjax.data.transforms.video_clips import open_clip, shown_at

KINDS = {
    "mp4, three frames that none refers to": ("mp4", "libx264", {"g": 12, "bf": 3}),
    "mp4, one key frame": ("mp4", "libx264", {"g": 250}),
    "mkv, open groups": ("matroska", "libx264", {"g": 10, "x264-params": "open-gop=1"}),
    "mp4, every frame a key frame": ("mp4", "libx264", {"g": 1}),
    "webm": ("webm", "libvpx", {"g": 16, "auto-alt-ref": 1, "lag-in-frames": 12}),
    "webm, vp9": ("webm", "libvpx-vp9", {"g": 16}),
    "avi, without timestamps": ("avi", "mpeg4", {"g": 12, "bf": 2}),
    "mpeg, of GRID": ("mpeg", "mpeg1video", {"g": 12, "bf": 2}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_some_frames_are_those_of_the_whole(kind):
    container, codec, options = KINDS[kind]
    data = clips.encoded(clips.frames(40), container, codec, **options)
    whole = clips.decoded(data)
    clip = open_clip(data)
    assert len(clip.times) == len(whole) == 40
    np.testing.assert_allclose(clip.times, np.arange(40) / 25, atol=1.1e-3)  # WebM: milliseconds
    assert abs(clip.duration - 1.6) < 2e-3
    for chosen in ([0], [39], [3, 11, 12, 13, 38], range(40)):
        for i, frame in zip(chosen, clip.frames(chosen), strict=True):
            np.testing.assert_array_equal(frame, whole[i])


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_times_are_those_of_the_file_where_the_rate_varies(container):
    stamps = np.cumsum([7, 1, 1, 1, 20, 3, 3, 30, 1, 1])  # in units of 1/100 s
    data = clips.encoded(clips.frames(10), container, rate=100, stamps=stamps, g=4)
    clip, whole = open_clip(data), clips.decoded(data)
    np.testing.assert_allclose(clip.times, (stamps - stamps[0]) / 100, atol=1e-3)
    # One frame is shown from 0.03 s to 0.23 s, and one from 0.29 s to 0.59 s.
    np.testing.assert_array_equal(shown_at(clip, [0, 0.02, 0.1, 0.22, 0.5, 9]), [0, 2, 3, 3, 6, 9])
    video = video_ops.read_video(data)  # at 25 Hz
    mids = (np.arange(len(video)) + 0.5) / 25
    want = [max(i for i, t in enumerate(clip.times) if t <= mid + 1e-6) for mid in mids]
    np.testing.assert_array_equal(video, [whole[i] for i in want])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animations(kind):
    video = clips.frames(5)[:, :, :, :1].repeat(3, -1) // 64 * 64  # few colors: GIF keeps them
    data = clips.animated(video, kind, [100, 50, 200, 30, 60])
    clip = open_clip(data)
    np.testing.assert_allclose(clip.times, [0, 0.1, 0.15, 0.35, 0.38])
    assert clip.duration == pytest.approx(0.44)
    np.testing.assert_array_equal(clip.frames([1, 4]), video[[1, 4]])
    np.testing.assert_array_equal(clip.frames([0, 3]), video[[0, 3]])


def test_images_and_arrays_have_a_rate():
    video = clips.frames(6)
    for data in (video, clips.images(video)):
        clip = open_clip(data, rate=8)
        np.testing.assert_allclose(clip.times, np.arange(6) / 8)
        np.testing.assert_array_equal(clip.frames([2, 5]), video[[2, 5]])
    assert len(video_ops.read_video(video)) == 6


def test_a_recording_of_a_turned_phone_is_upright():
    data = clips.encoded(clips.frames(3))
    plain = open_clip(data).frames([0])[0]
    place = data.index(b"tkhd") + 4 + 40  # the matrix of the track: turned by 90 degrees
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    turned = open_clip(data[:place] + matrix + data[place + 36 :]).frames([0])[0]
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))


def test_what_is_no_video_is_said_in_a_sentence():
    data = clips.encoded(clips.frames(30), g=6)
    with pytest.raises(ValueError, match="the file has no video, only audio: leave it out"):
        open_clip(clips.only_sound())
    with pytest.raises(ValueError, match=r"\d+ bytes are no video that FFmpeg reads"):
        open_clip(data[: len(data) // 2])  # the index of an MP4 is at its end
    with pytest.raises(ValueError, match="20 bytes are no video that FFmpeg reads"):
        open_clip(b"0123456789" * 2)
    with pytest.raises(ValueError, match="the video has no frames"):
        open_clip(b"")
    start = data.index(b"mdat") + 8
    clip = open_clip(data[:start] + bytes(len(data) // 3) + data[start + len(data) // 3 :])
    with pytest.raises(ValueError, match="the video is damaged: its frame at 0.00 s cannot be"):
        clip.frames([0])
    gif = clips.animated(clips.frames(4), "PNG", 50)
    with pytest.raises(ValueError, match="the animation is damaged or truncated"):
        open_clip(gif[: len(gif) // 2]).frames([0, 3])


def test_the_frames_before_the_end_of_a_cut_file_are_read():
    data = clips.encoded(clips.frames(40), "matroska", g=5)
    clip = open_clip(data[: len(data) * 3 // 4])
    assert 10 < len(clip.times) < 40
    np.testing.assert_array_equal(clip.frames([7])[0], clips.decoded(data)[7])


def test_only_what_is_needed_is_decoded(monkeypatch):
    data = clips.encoded(clips.frames(60), g=10)
    clip, count = open_clip(data), []
    true = video_clips._upright
    monkeypatch.setattr(video_clips, "_upright", lambda frame: count.append(1) or true(frame))
    seen = []
    decoded = clip._decoded

    def watched(*args):
        for pair in decoded(*args):
            seen.append(pair)
            yield pair

    monkeypatch.setattr(clip, "_decoded", watched)
    clip.frames([2, 31, 57])
    assert len(count) == 3 and len(seen) < 25
