"""Contact sheets and animated previews of the report."""

import io
from types import SimpleNamespace

import clips
import numpy as np
import pytest
from PIL import Image

from mmjax.report.evaluated import Evaluated
from mmjax.report.sections.videos import SECTION, animation, contact_sheet, video_of


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
    evaluator = SimpleNamespace(source={})
    runner = SimpleNamespace(open_source=lambda settings: rows)
    evaluated = Evaluated("held", evaluator, runner, None, 0)
    found = SECTION.collect(evaluated)
    np.testing.assert_array_equal(found[0].frames, clips.frames(3))
    assert found[0].seconds == 3 / 25
    page = SECTION.html(found, 0)
    assert page.count("<article>") == 6 and page.count("data:image/webp") == 12
    assert "a &lt;" in page
    runner.open_source = lambda settings: [{"image": b""}]
    assert SECTION.collect(Evaluated("held", evaluator, runner, None, 0)) is None


def test_frames_of_several_shapes_are_refused():
    mixed = clips.images([*clips.frames(2, 8, 16), *clips.frames(1, 16, 8)])
    with pytest.raises(ValueError, match="the video's frames have several sizes"):
        video_of({"video": mixed})
