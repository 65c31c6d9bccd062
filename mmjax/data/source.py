"""The interface of a source: random access to the examples of a data set."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

# Fields of an example that hold media; `meta` leaves them out.
MEDIA = ("image", "audio", "waveform", "video")


class StoredFile(NamedTuple):
    """A file whose size and version its source knows: the time of its last modification, or what
    the store of its URL gives."""

    path: str
    bytes: int
    version: str


class Source(Protocol):
    """What `open_source` returns; this project's sources inherit from it.

    An example is a dict with some of `image`, `audio`, `captions`, `label`, `names`, `key` and
    other fields of the data set; CONTRIBUTING.md has the contract. `class_names` are the names of
    the labels, if known. `corpus` is what a tokenizer is trained on; None: all captions. Where
    `unchecked`, an image or video may turn out not to be decodable when it is read: see `is_bad`.
    `inputs` are the sources that it is made of, and `named_files` the files that its config names;
    `open_source` sets both. A source with an order of training of its own has
    `index_at(seed, position) -> index`; else `data/order.py` permutes all examples.
    """

    name: str
    class_names: list[str] | None = None
    corpus: list[str] | None = None
    unchecked: bool = False
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

    def files(self) -> Iterable[Path | StoredFile]:
        """The files that it reads itself, of any number: `data/file_list.py` notices changes.

        Sources that read others than their config names override this.
        """
        return self.named_files

    @property
    def total(self) -> int | None:
        """The number of examples; None while that is not known, see `ready`."""
        return len(self)

    @property
    def ready(self) -> int:
        """How many examples, from the first on, can be read at once: all, but of a source that is
        indexed while it is read; there `len` waits for all."""
        return len(self)

    def following(self, index: int) -> int:
        """The example after another one; after the last one the first."""
        return (index + 1) % len(self)

    def size_at(self, position: int) -> int:
        """How many examples the order of training depends on up to a position: all, but of a source
        that is indexed while it is read."""
        del position
        return len(self)

    def is_bad(self, index: int) -> bool:
        """Whether the media of an example, which could not be used, cannot be decoded; then it is
        counted, and training goes on with the next example. False unless `unchecked`.

        Raises:
          ValueError: more bad records than the source's limit.
        """
        return False


def without_media(example: Mapping[str, Any]) -> dict[str, Any]:
    """The example without `MEDIA`."""
    return {key: value for key, value in example.items() if key not in MEDIA}
