"""Caption files of a folder of images or recordings, in the layouts in which they are published.

    .jsonl             an object per line, {"file_name": "1.png", "caption": "a dog"}
    .json              the same objects as a list; or COCO's `images` and `annotations`
    .csv .tsv .txt     a header and a row per caption, separated by a comma (Flickr8k), a tab
                       (open_clip), `|` (Flickr30k's results.csv) or a semicolon: the header decides
    .txt .token        without a header, `1.jpg#0<tab>a dog` (Flickr8k.token.txt)

Fields are split as pandas splits them, but a row that does not fit is a bad record. COCO, `1.jpg#0`
and a column `comment_number` say that an image has several captions; elsewhere the setting
`multiple_captions` does.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from mmjax.data import text_file
from mmjax.data.bad_records import BadRecord
from mmjax.data.transforms.decode import image_suffixes

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".token")
IMAGE_COLUMNS = ("file_name", "image", "filepath", "image_name", "filename")
IMAGE_COLUMNS += ("audio", "audio_filepath", "path", "video")  # of recordings, videos
CAPTION_COLUMNS = ("caption", "captions", "text", "title", "comment")
CAPTION_COLUMNS += ("transcription", "transcript", "sentence")
# Of equally good ones the first is taken: a comma may also be in a header's or a caption's text.
SEPARATORS = ("\t", "|", ";", ",")
_NUMBER_COLUMN = "comment_number"
_NUMBERED_LINE = re.compile(r"([^\t]+)#\d+\t(.*)")


class _Row(NamedTuple):
    place: str  # "line 3"
    image: Any
    caption: Any  # str, in JSON also a list


def read_captions(
    path: Path,
    image_column: str | None = None,
    caption_column: str | None = None,
    multiple_captions: bool | None = None,
    of: str = "image",
) -> tuple[list[dict[str, Any]], list[BadRecord]]:
    """The records `{"key": image, "captions": [...]}` of a caption file, and its bad rows.

    Args:
      image_column, caption_column: None: the first of `IMAGE_COLUMNS` and `CAPTION_COLUMNS`.
      multiple_captions: whether the rows of one image are its captions, or an error. None: they
        are if the layout numbers them; otherwise a file where it looks so is refused.
      of: "image", "audio" or "video", as in the name of the setting for its column.

    Raises:
      ValueError: no such file, not UTF-8, invalid JSON, a missing column, a quote that is not
        closed, or several rows per image where `multiple_captions` is not set.
    """
    if not path.is_file():
        raise ValueError(f"There is no caption file {path}: set captions to its name.")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"The caption file {path} must end in one of {', '.join(SUFFIXES)}.")
    text = text_file.read(path)
    bad: list[BadRecord] = []
    numbered = False
    if suffix == ".jsonl":
        rows = _of_objects(_json_lines(text, path), path, image_column, caption_column, of)
    elif suffix == ".json":
        content = _parsed(text, str(path))
        numbered = isinstance(content, dict)
        if numbered:
            rows = _of_coco(content, path)
        else:
            content = _json_list(content, path)
            rows = _of_objects(content, path, image_column, caption_column, of)
    elif _NUMBERED_LINE.fullmatch(_first_line(text)):
        rows, numbered = _of_numbered_lines(text, path, bad), True
    else:
        rows, numbered = _of_table(text, path, image_column, caption_column, of, bad)
    if multiple_captions is None and numbered:
        multiple_captions = True
    return _by_image(rows, path, multiple_captions, bad), bad


def _by_image(
    rows: Sequence[_Row], path: Path, multiple: bool | None, bad: list[BadRecord]
) -> list[dict[str, Any]]:
    """A record per image, in the order of the first rows; rows that cannot be used go to `bad`."""
    records: dict[str, dict] = {}
    again: dict[str, str] = {}  # image with rows of different captions -> place of its second row
    for place, key, caption in rows:
        texts = caption if isinstance(caption, list) else [caption]
        texts = [t.strip() for t in texts if isinstance(t, str) and t.strip()]
        if not isinstance(key, str) or not key:
            bad.append(BadRecord(place, "missing_file", f"{path.name}, {place}, names no image"))
        elif not all(map(text_file.is_text, texts)):
            reason = f"{path.name}, {place}, has half of a surrogate pair, which is no character"
            bad.append(BadRecord(key, "bad_text", reason))
        elif key in records and not multiple:
            if texts and texts != records[key]["captions"]:
                again.setdefault(key, place)
            reason = f"{path.name}, {place}, names it again"
            if multiple is None:
                reason += "; if every row is one caption of its image, set multiple_captions=True"
            bad.append(BadRecord(key, "duplicate_key", reason))
        elif not texts:
            bad.append(BadRecord(key, "missing_caption", f"{path.name}, {place}, has none"))
        else:
            records.setdefault(key, {"key": key, "captions": []})["captions"] += texts
    if multiple is None and again and 2 * len(again) >= len(records):
        key, place = next(iter(again.items()))
        raise ValueError(
            f"{path} has several rows for {len(again)} of its {len(records)} images ({place} names "
            f"'{key}' again): if each row is one caption of its image, set multiple_captions=True; "
            "with False the first row of an image is used and the others are bad records."
        )
    return list(records.values())


# ---------------------------------------------------------------- JSON


def _parsed(text: str, name: str) -> Any:
    try:
        return text_file.parse_json(text)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}.") from error


def _json_lines(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text_file.lines(text), start=1):
        if line.strip():
            yield f"line {number}", _parsed(line, f"{path}, line {number},")


def _json_list(content: Any, path: Path) -> Iterator[tuple[str, Any]]:
    if not isinstance(content, list):
        raise ValueError(f"{path} must be a list of JSON objects, or COCO's annotations.")
    for number, row in enumerate(content, start=1):
        yield f"entry {number}", row


def _of_objects(
    objects: Iterator[tuple[str, Any]],
    path: Path,
    image_column: str | None,
    caption_column: str | None,
    of: str,
) -> list[_Row]:
    found = list(objects)
    for place, row in found:
        if not isinstance(row, dict):
            raise ValueError(f"{path}, {place}, must be a JSON object with named fields.")
    if not found:
        return []
    # Rows may differ in their fields: the columns are the union over all rows.
    columns = list(dict.fromkeys(column for _, row in found for column in row))
    image = _column(image_column, IMAGE_COLUMNS, columns, path, of)
    caption = _column(caption_column, CAPTION_COLUMNS, columns, path, "caption")
    return [_Row(place, row.get(image), row.get(caption)) for place, row in found]


def _of_coco(content: dict[str, Any], path: Path) -> list[_Row]:
    """A row per annotation, and one without a caption for an image that has no annotation."""
    try:
        names = {image["id"]: image["file_name"] for image in content["images"]}
        found = [(a["image_id"], a.get("caption")) for a in content["annotations"]]
        without = names.keys() - {image for image, _ in found}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} must be a list of JSON objects, or COCO's object with 'images' (id, "
            "file_name) and 'annotations' (image_id, caption)."
        ) from error
    if found and all(caption is None for _, caption in found):
        raise ValueError(
            f"The annotations of {path} have no 'caption': set captions to COCO's captions_*.json."
        )
    rows = [
        _Row(f"annotation {number}", names.get(image), caption)
        for number, (image, caption) in enumerate(found, start=1)
    ]
    return rows + [_Row(f"image {i}", names[i], None) for i in names if i in without]


def _column(
    asked: str | None,
    usual: Sequence[str],
    columns: list,
    path: Path,
    what: str,
    hint: str = "",
) -> str:
    found = _find(asked, usual, columns)
    if found is None:
        wanted = f"'{asked}'" if asked else " or ".join(f"'{c}'" for c in usual)
        raise ValueError(
            f"The caption file {path} has no {what} column {wanted}; its columns are "
            f"{', '.join(map(str, columns))}: set {what}_column{hint}."
        )
    return found


def _find(asked: str | None, usual: Sequence[str], columns: Sequence) -> str | None:
    return next((c for c in ([asked] if asked else usual) if c in columns), None)


# ---------------------------------------------------------------- lines and tables


def _first_line(text: str) -> str:
    return next((line for line in text_file.lines(text) if line.strip()), "")


def _of_numbered_lines(text: str, path: Path, bad: list[BadRecord]) -> list[_Row]:
    """Rows of `image#number<tab>caption`; a quote has no meaning there."""
    rows = []
    for number, line in enumerate(text_file.lines(text), start=1):
        match = _NUMBERED_LINE.fullmatch(line)
        if match:
            rows.append(_Row(f"line {number}", match[1], match[2]))
        elif line.strip():
            reason = f"{path.name}, line {number}, is not of the form image#number<tab>caption"
            bad.append(BadRecord(f"line {number}", "bad_row", reason))
    return rows


def _of_table(
    text: str,
    path: Path,
    image_column: str | None,
    caption_column: str | None,
    of: str,
    bad: list[BadRecord],
) -> tuple[list[_Row], bool]:
    """Rows below a header, and whether the table numbers the captions of an image."""
    lines = list(io.StringIO(text, newline=""))  # the line ends are kept: a field may have them
    header = next((n for n, line in enumerate(lines) if line.strip()), None)
    if header is None:
        return [], False
    separator, columns = _header(lines[header], image_column, caption_column)
    hint = ", or put the names of the columns in the first line"
    image, caption = (
        columns.index(_column(asked, usual, columns, path, what, hint))
        for asked, usual, what in (
            (image_column, IMAGE_COLUMNS, of),
            (caption_column, CAPTION_COLUMNS, "caption"),
        )
    )
    rows = []
    for number, fields in _records(lines[header + 1 :], header + 2, separator, image, path):
        place = f"line {number}"
        if isinstance(fields, str):
            bad.append(BadRecord(place, "bad_row", f"{path.name}, {place}, {fields}"))
        elif len(fields) != len(columns):
            reason = f"{path.name}, {place}, has {len(fields)} fields, the header {len(columns)}"
            if len(fields) > len(columns):
                reason += f": put a text that contains '{separator}' in quotes"
            bad.append(BadRecord(place, "bad_row", reason))
        else:
            rows.append(_Row(place, fields[image].strip(), fields[caption]))
    return rows, _NUMBER_COLUMN in columns


def _header(
    line: str, image_column: str | None, caption_column: str | None
) -> tuple[str, list[str]]:
    """The separator by which a header has the wanted columns, or else the most; and its columns."""

    def worth(columns: list[str]) -> tuple[int, int]:
        image = _find(image_column, IMAGE_COLUMNS, columns)
        caption = _find(caption_column, CAPTION_COLUMNS, columns)
        return (image is not None) + (caption is not None), len(columns)

    splits = {
        separator: [name.strip() for name in next(csv.reader([line], delimiter=separator))]
        for separator in SEPARATORS
    }
    separator = max(splits, key=lambda s: worth(splits[s]))
    return separator, splits[separator]


def _records(
    lines: Sequence[str], first_number: int, separator: str, image: int, path: Path
) -> Iterator[tuple[int, list[str] | str]]:
    """(number of its first line, fields or what is wrong) of each record of a table.

    Raises:
      ValueError: a quote that is not closed.
    """
    ended = False

    def feed() -> Iterator[str]:
        nonlocal ended
        yield from lines
        ended = True

    reader = csv.reader(feed(), delimiter=separator, strict=True)
    while True:
        start = reader.line_num
        try:
            fields: list[str] | str = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fields = f"cannot be split into fields ({error}): double a quote that is in the text"
        record = lines[start : reader.line_num]
        failed = isinstance(fields, str)
        # A quote that is not closed ends at the next one, in another row, or at the end of the
        # file; what follows it there is an error, except where it ends a field by chance.
        if (failed and (ended or len(record) > 1)) or _has_rows(record[1:], separator, image):
            opened = _opened(record, separator) if failed else 0
            raise ValueError(
                f"{path}, line {first_number + start + opened}, opens a quote that is not closed "
                "there, so that the rows below it would become part of the text: close it, or "
                'double a quote (") that is in the text.'
            )
        if failed or len(fields) > 1 or "".join(fields).strip():  # blank lines are skipped
            yield first_number + start, fields


def _opened(record: Sequence[str], separator: str) -> int:
    """In which line of a record, from 0, the quote opens that is not closed."""
    end = re.escape(separator)
    whole = rf'(?:(?:"(?:[^"]|"")*"|[^"{end}\r\n][^{end}\r\n]*|){end})*'
    text = "".join(record)
    return len(text_file.lines(text[: re.match(whole, text).end()] + ".")) - 1


def _has_rows(lines: Sequence[str], separator: str, image: int) -> bool:
    """Whether lines inside a quoted field look like rows of the table: they name an image."""
    rows = [line.split(separator) for line in lines]
    names = [fields[image].strip() for fields in rows if image < len(fields) > 1]
    return any(PurePath(name).suffix.lower() in image_suffixes() for name in names)
