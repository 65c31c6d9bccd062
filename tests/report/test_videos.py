"""Contact sheets and animated previews of the report."""

import io

import clips
import numpy as np
from PIL import Image

from mmjax.report.videos import animation, contact_sheet, video_section


def test_a_contact_sheet_has_the_frames_in_rows():
    video = clips.frames(5, 8, 16)
    sheet = contact_sheet(video, columns=3)
    assert sheet.shape == (16, 48, 3)
    for i, frame in enumerate(video):
        y, x = i // 3 * 8, i % 3 * 16
        np.testing.assert_array_equal(sheet[y : y + 8, x : x + 16], frame)
    assert (sheet[8:, 32:] == 255).all()


def test_an_animation_takes_as_long_as_the_video():
    image = Image.open(io.BytesIO(animation(clips.frames(4), 2.0)))
    assert image.n_frames == 4 and image.size == (48, 32)
    image.load()
    assert image.info["duration"] == 500


def test_a_section_of_a_source_s_videos():
    rows = [{"video": clips.images(clips.frames(3)), "captions": [f"a <{i}>"]} for i in range(9)]
    section = video_section(rows, seed=0)
    assert section.count("<article>") == 6 and section.count("data:image/webp") == 12
    assert "a &lt;" in section and section == video_section(rows, seed=0)
    assert video_section([{"image": b""}], seed=0) == "" == video_section([], seed=0)
