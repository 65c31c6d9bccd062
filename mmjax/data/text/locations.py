"""Boxes and points as text, for models that read and generate them.

In the form "bins" each number is a token of its own, `<loc0000>` to `<loc1023>`, and y comes before
x, as in PaliGemma: y0, x0, y1, x1 of a box, y, x of a point. In the form "decimals" they are
numbers of two digits in any tokenizer's own text, and x comes first, as in LLaVA-1.5:
"[0.12, 0.40, 0.35, 0.98]".

A box that is written and read again is off by at most half a bin, 1/2046 of a side, or by 0.005.

Source: bins: big_vision, pp/proj/paligemma/segmentation.py, and evaluators/proj/paligemma/
transfers/segmentation.py, which divides by 1023; demos that divide by 1024 move a box at the right
or at the bottom by up to a whole bin more. Decimals: Liu et al. 2023 (arXiv 2310.03744), appendix.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np

BINS = 1024
TOKENS = tuple(f"<loc{i:04d}>" for i in range(BINS))
FORMS = ("bins", "decimals")
_RUN = re.compile(r"(?:<loc\d{4}>\s*)+")
_LIST = re.compile(r"\[([\d.,\s]*)\]")


def write_places(numbers: Sequence[float], form: str) -> str:
    """The text of a box (x0, y0, x1, y1) or of a point (x, y), in fractions of the image's sides.

    Raises:
      ValueError: an unknown form.
    """
    clipped = np.asarray(numbers, np.float64).clip(0, 1)
    if form == "bins":
        bins = np.round(clipped.reshape(-1, 2)[:, ::-1].ravel() * (BINS - 1)).astype(int)
        return "".join(TOKENS[i] for i in bins)
    if form == "decimals":
        return f"[{', '.join(f'{x:.2f}' for x in clipped)}]"
    raise ValueError(f"The form of boxes is '{form}': use one of {', '.join(FORMS)}.")


def read_box(text: str) -> np.ndarray | None:
    """The first box of a text, of either form: float64 `[4]`; None: no box, or one without area."""
    box = next(_places(text, 4), None)
    return box if box is not None and (box[2:] > box[:2]).all() else None


def read_point(text: str) -> np.ndarray | None:
    """The first point of a text, of either form: float64 `[2]`, x, y; None: no point."""
    return next(_places(text, 2), None)


def _places(text: str, count: int) -> Iterator[np.ndarray]:
    """Those of so many numbers in a text, the first first; all numbers are from 0 to 1."""
    found = []
    for run in _RUN.finditer(text):
        bins = np.asarray([int(digits) for digits in re.findall(r"\d{4}", run[0])])
        if len(bins) == count and bins.max() < BINS:
            found.append((run.start(), bins.reshape(-1, 2)[:, ::-1].ravel() / (BINS - 1)))
    for run in _LIST.finditer(text):
        try:
            numbers = np.asarray([float(number) for number in run[1].split(",")])
        except ValueError:  # "[0.1.2]"
            continue
        if len(numbers) == count and (numbers <= 1).all():
            found.append((run.start(), numbers))
    yield from (numbers for _, numbers in sorted(found, key=lambda place: place[0]))
