"""Subtitles as their formats want them."""

import json

from mmjax.speech.segments import Segment, Word
from mmjax.speech.writers import FORMATS, Transcript, clock

FACTS = (0.0, -0.2, 1.1, 0.01)
WORDS = (Word(" Hello", 0.0, 0.4, 0.9),)
TRANSCRIPT = Transcript(
    "en",
    3700.5,
    [
        Segment(0.0, 1.5, " Hello\n\nthere.", (7, 8), *FACTS, WORDS),
        Segment(3599.9996, 3700.5, " a < b --> c & d", (9,), *FACTS),
    ],
)


def test_clock_rounds_and_carries():
    assert clock(0) == "00:00:00.000"
    assert clock(59.9996, ",") == "00:01:00,000"
    assert clock(36_000.25) == "10:00:00.250"


def test_formats():
    assert FORMATS["txt"](TRANSCRIPT) == "Hello there.\na < b --> c & d\n"
    assert FORMATS["srt"](TRANSCRIPT) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello there.\n\n"
        "2\n01:00:00,000 --> 01:01:40,500\na < b -> c & d\n"
    )
    assert FORMATS["vtt"](TRANSCRIPT) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello there.\n\n"
        "01:00:00.000 --> 01:01:40.500\na &lt; b --&gt; c &amp; d\n"
    )
    found = json.loads(FORMATS["json"](TRANSCRIPT))
    assert found["text"] == "Hello\n\nthere. a < b --> c & d" and found["language"] == "en"
    first, second = found["segments"]
    assert first["words"] == [{"word": " Hello", "start": 0.0, "end": 0.4, "probability": 0.9}]
    assert "words" not in second and second["id"] == 1 and second["tokens"] == [9]


def test_silence_has_empty_files():
    silence = Transcript("en", 1.0, [])
    assert FORMATS["txt"](silence) == FORMATS["srt"](silence) == ""
    assert FORMATS["vtt"](silence) == "WEBVTT\n"
    assert json.loads(FORMATS["json"](silence))["text"] == ""
