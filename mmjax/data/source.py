"""The interface of a source: random access to the examples of a data set."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

# Fields of an example that hold media; `meta` leaves them out.
MEDIA = ("image", "audio", "waveform", "video")


class Source(Protocol):
    """What `open_source` returns; this project's sources inherit from it.

    An example is a dict with some of `image`, `audio`, `captions`, `label`, `names`, `key` and
    other fields of the data set; CONTRIBUTING.md has the contract. `class_names` are the names of
    the labels, if known. `corpus` is what a tokenizer is trained on; None: all captions. `inputs`
    are the sources that it is made of, and `named_files` the files that its config names;
    `open_source` sets both.
    """

    name: str
    class_names: list[str] | None = None
    corpus: list[str] | None = None
    inputs: Sequence["Source"] = ()
    named_files: Sequence[Path] = ()

    def __len__(self) -> int:
        """The number of examples."""
        ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One example.

        Raises:
          OSError: its file is missing. ValueError: its data cannot be used.
        """
        ...

    def meta(self, index: int) -> dict[str, Any]:
        """The example without its media: captions, labels, names, key.

        Sources that can do so without reading the media override this.
        """
        return without_media(self[index])

    def files(self) -> Iterable[Path]:
        """The files that it reads itself, of any number: `data/file_list.py` notices changes.

        Sources that read others than their config names override this.
        """
        return self.named_files


def without_media(example: Mapping[str, Any]) -> dict[str, Any]:
    """The example without `MEDIA`."""
    return {key: value for key, value in example.items() if key not in MEDIA}
