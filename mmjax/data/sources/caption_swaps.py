"""Captions beside swapped ones: what an evaluation of compositionality asks about a source."""

import zlib
from collections.abc import Sequence
from typing import Any

from mmjax.data.source import Source
from mmjax.data.text.swaps import alternatives
from mmjax.data.transforms.captions import as_text


def open_caption_swaps(source: Source, kinds: Sequence[str] = ()) -> "CaptionSwaps":
    """An example for each kind of swap that an image's first caption has; see `text/swaps.py`.

    `captions` is that caption alone, `swapped_captions` another text of that kind, `swap_kind` its
    name. Of several alternatives one that is the caption of another image of the source is taken;
    two images whose captions are the swaps of each other have the same `group`, as in Winoground
    (Thrush et al. 2022, arXiv 2204.03162), "" otherwise.

    Args:
      kinds: of the swaps; (): all.

    Raises:
      ValueError: a source none of whose captions can be swapped.
    """
    first = [as_text(source.meta(i).get("captions", [""])[0]) for i in range(len(source))]
    place: dict[str, int] = {}
    for i, caption in enumerate(first):
        place.setdefault(caption, i)
    rows: list[tuple[int, str, str, str]] = []
    for i, caption in enumerate(first):
        for kind, texts in alternatives(caption).items() if place[caption] == i else ():
            if kinds and kind not in kinds:
                continue
            known = [text for text in texts if text in place] or texts
            text = known[zlib.crc32(caption.encode()) % len(known)]
            rows.append((i, kind, text, ""))
    if not rows:
        raise ValueError(
            f"No caption of {source.name} can be swapped by {', '.join(kinds) or 'any kind'}: give "
            "another source or other kinds."
        )
    asked = {(i, kind): text for i, kind, text, _ in rows}
    grouped = []
    for i, kind, text, _ in rows:
        other = place.get(text)
        both = other is not None and asked.get((other, kind)) == first[i]
        group = f"{kind} {min(i, other)} {max(i, other)}" if both else ""
        grouped.append((i, kind, text, group))
    return CaptionSwaps(source, grouped)


class CaptionSwaps(Source):
    """See `open_caption_swaps`; rows: (index in the source, kind, swapped caption, group)."""

    def __init__(self, source: Source, rows: Sequence[tuple[int, str, str, str]]):
        self.name, self.class_names = f"caption swaps of {source.name}", source.class_names
        self._source, self._rows = source, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._row(index, self._source[self._rows[index][0]])

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`."""
        return self._row(index, self._source.meta(self._rows[index][0]))

    def _row(self, index: int, example: dict[str, Any]) -> dict[str, Any]:
        _, kind, text, group = self._rows[index]
        swap = {"swapped_captions": [text], "swap_kind": kind, "group": group}
        return {**example, "captions": [as_text(example["captions"][0])], **swap}
