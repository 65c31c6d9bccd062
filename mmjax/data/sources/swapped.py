"""A source with noisy captions: some examples have the captions of others."""

from typing import Any

import numpy as np

from mmjax.data.source import Source

TEXTS = ("captions", "names", "languages")


def open_swapped(source: Source, fraction: float, seed: int = 0) -> "Swapped":
    """The source, of which a fraction of the examples have the captions of another one of them.

    Which ones, and whose captions they get, follows from the seed; those of a smaller fraction are
    among those of a larger one. `meta` and examples have the field `swapped`: whether the captions
    differ from the example's own, which those of another one may equal.

    Raises:
      ValueError: a fraction out of [0, 1], or one that gives a single example, or a source without
        captions.
    """
    count = round(fraction * len(source)) if 0 <= fraction <= 1 else -1
    if count < 0 or count == 1:
        raise ValueError(
            f"A source of kind 'swapped' has fraction {fraction} of {len(source)} examples: use "
            "0 to 1, and enough for at least two."
        )
    chosen = np.random.default_rng(seed).permutation(len(source))[:count]
    if count and not any(source.meta(i).get("captions") for i in chosen.tolist()):
        raise ValueError(
            f"A source of kind 'swapped' exchanges captions, and {source.name} has none: give it "
            "a source with captions."
        )
    return Swapped(source, dict(zip(chosen.tolist(), np.roll(chosen, 1).tolist())))


class Swapped(Source):
    """See `open_swapped`; `texts` maps an example to the one whose captions it has."""

    def __init__(self, source: Source, texts: dict[int, int]):
        self.name, self.class_names = f"swapped {source.name}", source.class_names
        self._source, self._texts = source, texts

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._swap(index, self._source[index])

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`."""
        return self._swap(index, self._source.meta(index))

    def _swap(self, index: int, example: dict[str, Any]) -> dict[str, Any]:
        if index not in self._texts:
            return {**example, "swapped": False}
        other = self._source.meta(self._texts[index])
        own = {k: v for k, v in example.items() if k not in TEXTS}
        texts = {k: other[k] for k in TEXTS if k in other}
        differ = list(texts.get("captions", ())) != list(example.get("captions", ()))
        return own | texts | {"swapped": differ}
