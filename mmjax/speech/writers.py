"""Transcripts as text, subtitles (SRT, WebVTT) and JSON."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from mmjax.speech.segments import Segment


@dataclasses.dataclass(frozen=True)
class Transcript:
    """The transcript of a recording.

    Attributes:
      language: its code; detected where none was given.
      seconds: length of the recording.
    """

    language: str
    seconds: float
    segments: Sequence[Segment]

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(segment.text for segment in self.segments).strip()


def clock(seconds: float, mark: str = ".") -> str:
    """Such as 01:02:03.450; `mark` is in front of the milliseconds."""
    milliseconds = round(1000 * max(0.0, seconds))
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"


def txt(transcript: Transcript) -> str:
    """A line for each segment."""
    return "".join(f"{text}\n" for _, _, text in _cues(transcript))


def srt(transcript: Transcript) -> str:
    """SubRip subtitles: a numbered cue for each segment; its arrow, in a text, becomes "->"."""
    cues = [
        f"{n}\n{clock(start, ',')} --> {clock(end, ',')}\n{text.replace('-->', '->')}\n"
        for n, (start, end, text) in enumerate(_cues(transcript), start=1)
    ]
    return "\n".join(cues)


def vtt(transcript: Transcript) -> str:
    """WebVTT subtitles."""
    cues = [
        f"{clock(start)} --> {clock(end)}\n{_escaped(text)}\n"
        for start, end, text in _cues(transcript)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def as_json(transcript: Transcript) -> str:
    """All that is known, with the field names of openai-whisper; see `Segment`."""
    rows: list[dict[str, Any]] = []
    for n, segment in enumerate(transcript.segments):
        row = {"id": n, **dataclasses.asdict(segment)}
        if segment.words is None:
            del row["words"]
        rows.append(row)
    content = {
        "text": transcript.text,
        "language": transcript.language,
        "duration": transcript.seconds,
        "segments": rows,
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "txt": txt,
    "srt": srt,
    "vtt": vtt,
    "json": as_json,
}


def _cues(transcript: Transcript) -> list[tuple[float, float, str]]:
    """(start, end, text) of each segment; the text is one line, since a blank one ends a cue."""
    return [(s.start, s.end, " ".join(s.text.split())) for s in transcript.segments]


def _escaped(text: str) -> str:
    """Characters that WebVTT reads as markup, and its arrow."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
