"""Windows of one long text, for language models of running text."""

from pathlib import Path
from typing import Any

from mmjax.data import text_file
from mmjax.data.builders.shakespeare import shakespeare
from mmjax.data.source import Source


def open_text_windows(
    file: str, length: int, stride: int = 1, start: float = 0.0, stop: float = 1.0
) -> "TextWindows":
    """Windows of a text file's part from `start` to `stop`, each the caption of an example.

    The tokenizer is trained on the whole file, as nanoGPT's `prepare.py` does it.

    Args:
      file: a UTF-8 file, or "shakespeare": see `builders/shakespeare.py`.
      length: characters of a window; stride: from the beginning of one to that of the next.
      start, stop: fractions of the file's characters.

    Raises:
      ValueError: no such file, one that is not UTF-8, or a part without a whole window.
    """
    if length < 1 or stride < 1:
        raise ValueError(f"length is {length} and stride {stride}: use 1 or more.")
    text = _read(file)
    first, last = (int(fraction * len(text)) for fraction in (start, stop))
    if not 0 <= first <= last - length <= len(text) - length:
        raise ValueError(
            f"The part from {start} to {stop} of {file} has no {length} characters in a row: use "
            "fractions 0 ≤ start < stop ≤ 1, further apart."
        )
    return TextWindows(text, Path(file).name, first, last, length, stride)


def _read(file: str) -> str:
    if file == "shakespeare":
        return shakespeare()
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"There is no text file '{path}': give one, or \"shakespeare\".")
    return text_file.read(path)


class TextWindows(Source):
    """See `open_text_windows`."""

    def __init__(self, text: str, name: str, first: int, last: int, length: int, stride: int):
        self.name, self.corpus = f"{name} [{first}:{last}]", [text]
        self._part, self._length, self._stride = text[first:last], length, stride

    def __len__(self) -> int:
        return (len(self._part) - self._length) // self._stride + 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} windows, not one numbered {index}")
        begin = index * self._stride
        window = self._part[begin : begin + self._length]
        return {"key": f"{self.name}[{index}]", "captions": [window]}
