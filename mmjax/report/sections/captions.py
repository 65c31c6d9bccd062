"""Generated captions beside the human ones."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mmjax.evals.captioning import Captioning
from mmjax.report.evaluated import Evaluated
from mmjax.report.markup import image_tag, text
from mmjax.report.sections.retrieval import image_of
from mmjax.report.sections.section import Section

IMAGES = 24


@dataclasses.dataclass(frozen=True)
class CaptionExample:
    """An image with its generated caption and its references."""

    image: np.ndarray  # uint8 [H, W, 3]
    generated: str
    references: list[str]
    nearest: str  # caption of the nearest training image, or ""


def _collect(evaluated: Evaluated) -> list[CaptionExample] | None:
    if not isinstance(evaluated.evaluator, Captioning):
        return None
    source = evaluated.source
    drawn = evaluated.drawn(len(source), IMAGES)
    found = evaluated.evaluator.captions(evaluated.variables, drawn)
    nearest = found.nearest or [""] * len(found.texts)
    return [
        CaptionExample(image_of(source[int(i)]), *texts)
        for i, *texts in zip(found.places, found.texts, found.references, nearest)
    ]


def _html(examples: Sequence[CaptionExample], seed: int) -> str:
    tiles = "".join(
        f"<article>{image_tag(e.image, e.generated)}<p><b>{text(e.generated)}</b></p>"
        f"<p>{' · '.join(text(t) for t in e.references[:3])}</p>"
        + (f'<p class="own">{text(e.nearest)}</p>' if e.nearest else "")
        + "</article>"
        for e in examples
    )
    last = ", then the caption of the nearest training image" * any(e.nearest for e in examples)
    return (
        f'<p class="note">{len(examples)} images drawn at random (seed {seed}). In bold the '
        f"generated caption, below it the human captions{last}.</p>"
        f'<div class="examples wide">{tiles}</div>'
    )


SECTION = Section("Captions", _collect, _html)
