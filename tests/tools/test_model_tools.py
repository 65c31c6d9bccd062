"""Tools with a model: what they say is what the commands say, and nothing is loaded early."""

import io
import sys
import threading

import numpy as np
import pytest
import soundfile
from parity import GOLDEN
from PIL import Image, ImageDraw, ImageFont

from mmjax import detect, zero_shot
from mmjax.data.text.calls import Call
from mmjax.detection.detector import open_detector
from mmjax.tools import classifier, detector, table
from mmjax.tools.run import LOADING, Given, Loaded, run
from mmjax.tools.table import TOOLS, named
from mmjax.transcribe import transcribe


def file_of(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """The path of an image, and its bytes."""
    path = tmp_path_factory.mktemp("images") / "a.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path, path.read_bytes()


def test_the_classifier_says_what_the_command_says(noise, monkeypatch):
    path, image = noise
    monkeypatch.setattr(classifier, "class_names", lambda: ("tea", "a cat", "two dogs", "a bus"))
    tools = named(f"classifier={GOLDEN / 'clip'}")
    for arguments, labels in (
        ("a cat, tea,, tea", ["a cat", "tea"]),
        ("", classifier.class_names()),
    ):
        given = run(Call("classifier", arguments), tools, [b"first", image])
        ((_, want),) = zero_shot.zero_shot(GOLDEN / "clip", labels, [path], classifier.TEMPLATES)
        best = sorted(zip(labels, want), key=lambda pair: -pair[1])[:3]
        assert given == ", ".join(f"{label} {p:.2f}" for label, p in best)
    for arguments, images, words in (
        ("tea", [image], "error: 'tea' is the only label: give several, or none."),
        ("tea, cat", [], "error: there is no image."),
        (",".join(map(str, range(51))), [image], "error: there are 51 labels, and at most 50 fit."),
    ):
        assert run(Call("classifier", arguments), tools, images) == words
    assert run(Call("classifier", "a, b"), tools, [b"no image"]).startswith("error: ")


def test_the_detector_says_what_the_command_says_as_fractions(noise, monkeypatch):
    monkeypatch.setattr(detector, "THRESHOLD", 0.0)
    monkeypatch.setattr(detector, "OVERLAP", 1.0)
    path, image = noise
    given = run(Call("detector", "red bus, tea"), named(f"detector={GOLDEN / 'owlv2'}"), [image])
    model = open_detector(GOLDEN / "owlv2")
    queries = model.texts(["red bus", "tea"], detector.TEMPLATES)
    ((_, want),) = detect.detect(model, queries, [path], 0.0)
    lines = given.split("; ")
    assert len(lines) == detector.MOST < len(want.scores)
    for line, box, score, label in zip(lines, *want):
        what, where = line.split(" at ")
        assert what == f"{('red bus', 'tea')[label]} {score:.2f}"
        numbers = [float(x) for x in where.split(", ")]
        np.testing.assert_allclose(numbers, box / [30, 40, 30, 40], atol=0.0051)
    cropped = run(Call("crop", lines[0].split(" at ")[1]), TOOLS, [image])
    assert isinstance(cropped, bytes) or "must have 0 <= x0 < x1" in cropped
    tools = {"detector": detector.Detect(model)}
    assert run(Call("detector", " , "), tools, [image]) == (
        "error: say what to find, such as 'cat, dog'."
    )
    monkeypatch.setattr(detector, "THRESHOLD", 1.0)
    assert run(Call("detector", "tea"), tools, [image]) == "nothing is found"


def test_speech_says_what_the_command_says(tmp_path):
    samples = np.random.default_rng(1).normal(0, 0.1, 8000)
    path = str(tmp_path / "a.wav")
    soundfile.write(path, samples, 16_000)
    soundfile.write(tmp_path / "silence.wav", np.zeros(8000), 16_000)
    tools = named(f"speech={GOLDEN / 'whisper_words'}")
    given = run(Call("speech", ""), tools, audio=["none.wav", path])
    ((_, want),) = transcribe(GOLDEN / "whisper_words", [path], timestamps=False)
    assert given == want.text[:500].strip() and given
    for audio, arguments, words in (
        ([], "", "error: there is no recording."),
        (["none.wav"], "", "error: there is no file 'none.wav'."),
        ([path], "xx", "error: The model has no language 'xx'"),
        ([str(tmp_path / "silence.wav")], "", "nothing is said"),
    ):
        assert run(Call("speech", arguments), tools, audio=audio).startswith(words)


def test_text_is_read():
    pytest.importorskip("tesserocr", reason="pip install 'mmjax[ocr]'")
    for points in (11, 30):
        image = Image.new("RGB", (9 * points, 4 * points), (240, 240, 230))
        font = ImageFont.load_default(points)
        draw = ImageDraw.Draw(image)
        draw.text((points, points // 2), "Invoice 4711\nTotal: 38.50", font=font, fill=(0, 0, 40))
        found = run(Call("ocr", ""), named("ocr"), [file_of(image)])
        assert found == "Invoice 4711\nTotal: 38.50"
    blank = file_of(Image.new("RGB", (1, 3), "white"))
    assert run(Call("ocr", ""), TOOLS, [blank]) == "there is no text"


def test_a_missing_package_is_named(noise, monkeypatch):
    monkeypatch.setitem(sys.modules, "tesserocr", None)
    words = "error: ocr is not installed: pip install 'mmjax[ocr]'"
    assert run(Call("ocr", ""), TOOLS, [noise[1]]).startswith(words)
    assert run(Call("ocr", ""), TOOLS) == "error: there is no image."


def test_a_tool_is_loaded_once_at_its_first_call_which_may_take_longer(monkeypatch, tmp_path):
    loads, wait = [], threading.Event()

    def load(path):
        loads.append(path)
        if len(loads) == 1:
            raise ValueError("There is no folder 'x'.")

        def tool(arguments, given):
            return f"{arguments} {len(given.images)}" if arguments != "hang" else wait.wait(30)

        return tool

    monkeypatch.setitem(table.MODELS, "detector", (load, 0.05))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").touch()
    tools = named("detector = x ,calculator")
    tool = tools["detector"]
    assert isinstance(tool, Loaded) and tool.seconds == LOADING and not loads
    # Under seconds that would not do for a load.
    assert run(Call("detector", ""), tools) == "error: There is no folder 'x'."
    assert tool.seconds == LOADING
    assert run(Call("detector", "a"), tools, [b""]) == run(Call("detector", "a"), tools, [b""])
    assert loads == ["x", "x"] and tool("b", Given()) == "b 0"
    assert run(Call("detector", "hang"), tools) == "error: detector took longer than 0.05 s."
    wait.set()


@pytest.mark.parametrize(
    "names, words",
    [
        ("crop=x", "The tool 'crop' has no model: leave '=x' out"),
        ("calculator,detector", "The tool 'detector' needs a model: write detector=PATH"),
        ("speech=", "The tool 'speech' needs a model: write speech=PATH"),
        ("classifier=", "The tool 'classifier' needs a model"),
        ("detector=typo", "There is no 'typo', the model of the tool 'detector'"),
        ("dectector=x", "There is no tool 'dectector': use calculator, .*detector"),
    ],
)
def test_tools_that_cannot_be_named_so(names, words):
    with pytest.raises(ValueError, match=words):
        named(names)
