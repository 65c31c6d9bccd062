"""Conversations about images: LLaVA's instruction data, ShareGPT's forms, and lines of messages."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmjax.data import text_file
from mmjax.data.bad_records import BadRecord, allow
from mmjax.data.cache import data_root
from mmjax.data.image_files import file_fault
from mmjax.data.source import Source
from mmjax.data.text.chat import check_messages
from mmjax.data.text.image_places import PLACE
from mmjax.process.printable import printable

TURNS = ("conversations", "conversation", "messages")  # names of the list of turns
SPEAKERS = {
    **dict.fromkeys(("user", "human", "Human", "USER"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "bard", "bing"), "assistant"),
    "system": "system",
}
WORDS = ("value", "content", "text")  # names of what is said


def open_conversations(
    path: str | os.PathLike,
    images: str | os.PathLike = "",
    max_bad_records: int | float = 0,
    data_dir: str | os.PathLike | None = None,
    workdir: str | os.PathLike | None = None,
) -> "Conversations":
    """The conversations of a file: a JSON list, or a JSON object on each line.

    A record has its turns in one of `TURNS`; a turn says who speaks in `from` or `role`, and what
    in one of `WORDS`: text with "<image>" for each image, or a list of parts, as {"type": "text",
    "text": ...} and {"type": "image", "image": file}. Images are the files in `image` or `images`
    of the record, and those of its parts, in order; `audio` is a file. `id` or `key` names it.

    Args:
      images: the folder with the files; "": that of the file.
      max_bad_records, workdir: see `open_coco`.

    Raises:
      ValueError: no such file, a file of another form, or too many bad records.

    Source: the format: haotian-liu/LLaVA, docs/Finetune_Custom_Data.md.
    """
    path = Path(path).expanduser()
    root = Path(images).expanduser() if images else path.parent
    given = read_records(path)
    records, bad = [], []
    for number, record in enumerate(given):
        name = f"record {number}"
        try:
            if isinstance(record, Mapping):
                found = record.get("id", record.get("key"))
                name = name if found is None else f"{name} ('{printable(str(found))}')"
            conversation = read_conversation(record)
            for file in (*conversation["files"], *filter(None, [conversation["audio"]])):
                _check_file(root, file)
        except ValueError as error:
            bad.append(BadRecord(name, "bad_text", f"{name} of {path}: {error}"))
            continue
        records.append({"key": str(number) if found is None else str(found), **conversation})
    allow(bad, len(given), max_bad_records, str(path), Path(workdir or data_root(data_dir)))
    if not records:
        raise ValueError(f"'{path}' has no usable conversation left of {len(given)}.")
    return Conversations(str(path), root, records)


class Conversations(Source):
    """See `open_conversations`: examples with `messages`, and `image`, a tuple of files."""

    def __init__(self, name: str, root: Path, records: list[dict[str, Any]]):
        self.name, self._root, self._records = name, root, records
        self.corpus = [m["content"] for record in records for m in record["messages"]]

    def __len__(self) -> int:
        return len(self._records)

    def files(self) -> Iterable[Path]:
        """See `Source.files`."""
        yield from self.named_files
        for record in self._records:
            for name in (*record["files"], *filter(None, [record["audio"]])):
                yield self._root / name

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._records[index]
        media = {"image": tuple((self._root / x).read_bytes() for x in record["files"])}
        if record["audio"]:
            media["audio"] = (self._root / record["audio"]).read_bytes()
        return {**self.meta(index), **media}

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`; `images` is the number of images."""
        record = self._records[index]
        return {
            "key": record["key"],
            "messages": record["messages"],
            "images": len(record["files"]),
        }


def read_records(path: Path) -> list[Any]:
    """The records of a JSON list, or of lines of JSON.

    Raises:
      ValueError: no such file, or one of another form; names the line.
    """
    if not path.is_file():
        raise ValueError(f"There is no file '{path}' of conversations.")
    text = text_file.read(path)
    if text.lstrip().startswith("["):
        found = _json(text, f"'{path}'")
    else:
        numbered = enumerate(text_file.lines(text), 1)
        found = [_json(x, f"Line {i} of '{path}'") for i, x in numbered if x.strip()]
    if not found:
        raise ValueError(f"'{path}' has no conversations.")
    return found


def _json(text: str, name: str) -> Any:
    try:
        return text_file.parse_json(text)
    except ValueError as error:
        raise ValueError(
            f"{name} cannot be read: a file of conversations is a JSON list, or a JSON object on "
            f"each line ({error})."
        ) from None


def read_conversation(record: Any) -> dict[str, Any]:
    """`messages`, `files` of images and `audio` of a record.

    Raises:
      ValueError: a record of another form, or one that `check_messages` refuses.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"it is a {type(record).__name__}, and must be an object")
    turns = next((record[name] for name in TURNS if name in record), None)
    if not isinstance(turns, list):
        raise ValueError(f"it has no list of turns: name it one of {', '.join(TURNS)}")
    files = _files(record)
    placed, messages = [], []
    for i, turn in enumerate(turns):
        role, content, own = _turn(turn, i)
        if re.search("[\ud800-\udfff]", content):
            raise ValueError(f"turn {i} has half of a surrogate pair, which is no character")
        placed += own
        messages.append({"role": role, "content": content})
    if files and any(placed):
        raise ValueError("it names images both beside its turns and in them: keep one")
    files = files or placed
    if None in files:
        raise ValueError("a part of type image has no file, and there is none beside the turns")
    check_messages(messages, len(files))
    audio = record.get("audio")
    if not isinstance(audio, str | None):
        raise ValueError(f"its audio is {audio!r}: it must be the name of a file")
    return {"messages": messages, "files": files, "audio": audio}


def _files(record: Mapping[str, Any]) -> list[str]:
    given = record.get("image", record.get("images"))
    files = [] if given is None else given if isinstance(given, list) else [given]
    if not all(isinstance(file, str) for file in files):
        raise ValueError(f"its images are {given!r}: they must be names of files")
    return files


def _turn(turn: Any, number: int) -> tuple[str, str, list[str | None]]:
    """Role and content of a turn, and the files of its parts that are images."""
    if not isinstance(turn, Mapping):
        raise ValueError(f"turn {number} is a {type(turn).__name__}, and must be an object")
    speaker = turn.get("from", turn.get("role"))
    if not isinstance(speaker, str) or speaker not in SPEAKERS:
        raise ValueError(f"turn {number} is by {speaker!r}: use one of {', '.join(SPEAKERS)}")
    said = next((turn[name] for name in WORDS if turn.get(name) is not None), "")
    if isinstance(said, str):
        return SPEAKERS[speaker], said, []
    if not isinstance(said, list):
        raise ValueError(f"turn {number} says {said!r}: it must be text, or a list of parts")
    content, files = "", []
    for part in said:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            content += part["text"]
        elif kind == "image":
            content += PLACE
            file = next((part[k] for k in ("image", "path", "url") if k in part), None)
            if not isinstance(file, str | None):
                raise ValueError(f"turn {number} has the image {file!r}: it must name a file")
            files.append(file)
        else:
            raise ValueError(f"turn {number} has the part {part!r}: use text and images")
    return SPEAKERS[speaker], content, files


def _check_file(root: Path, file: str) -> None:
    """Raise ValueError for a file that is missing or not in the folder."""
    fault = file_fault(root, file)
    if fault is not None:
        raise ValueError(printable(fault))
