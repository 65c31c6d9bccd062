"""The page of one batch: its images and captions, largest loss first."""

import dataclasses
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmjax.report.markup import image_tag, text
from mmjax.report.page import write_page

SHOWN = 256  # maximum number of examples on the page: those with the largest loss


@dataclasses.dataclass(frozen=True)
class Example:
    """One row of a batch; `image` is uint8 `[H, W, 3]`, or None if it has none."""

    row: int
    example_id: int
    key: str
    caption: str
    loss: float
    image: np.ndarray | None


def worst_first(examples: Sequence[Example]) -> list[Example]:
    """Sorted by decreasing loss, NaN first."""
    return sorted(examples, key=lambda e: (not math.isnan(e.loss), -e.loss))


def write_examples(
    path: Path, title: str, about: Mapping[str, str], examples: Sequence[Example]
) -> None:
    """Write the page of a batch, with at most `SHOWN` examples."""
    ordered = worst_first(examples)
    shown = ordered[:SHOWN]
    finite = [e.loss for e in ordered if math.isfinite(e.loss)] or [0.0]
    low, high = min(finite), max(finite)
    tiles = "".join(_tile(e, (e.loss - low) / max(high - low, 1e-9)) for e in shown)
    number = "" if len(shown) == len(ordered) else f" (the worst {SHOWN} of {len(ordered)})"
    note = (
        f'<p class="note">Sorted by loss, largest first{number}. The bar shows the loss on the '
        "range from the batch's minimum to its maximum. Images and captions are the model's input, "
        "after augmentation and truncation; the small number is the example's index in the "
        "source.</p>"
    )
    grid = f'{note}<div class="examples">{tiles}</div>'
    write_page(path, title, about, [("examples", "Examples", grid)])


def _tile(example: Example, relative: float) -> str:
    shown = "" if example.image is None else image_tag(example.image, example.caption)
    width = 100 * relative if math.isfinite(relative) else 100
    return (
        f'<article title="{html.escape(example.key)}">{shown}<div class="bar">'
        f'<i style="width:{width:.0f}%"></i></div><b>{example.loss:.3f}</b> '
        f"<small>{example.example_id}</small><p>{text(example.caption)}</p></article>"
    )
