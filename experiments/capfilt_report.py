"""The page of a bootstrapped set: scores of its captions, and examples of what was kept or not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.source import Source
from mmjax.data.transforms import parse as transforms
from mmjax.report import figures
from mmjax.report.markup import card_grid, image_tag, inline_svg, text
from mmjax.report.page import write_page

SHOWN = 24  # examples of each kind
KINDS = {
    ("original", True): "Original captions, kept",
    ("original", False): "Original captions, removed",
    ("generated", True): "Generated captions, kept",
    ("generated", False): "Generated captions, removed",
}

Row = Mapping[str, Any]  # a candidate: index, kind, text, kept, and perhaps score and swapped


def detection(rows: Sequence[Row]) -> dict[str, float]:
    """How well the scores of original captions tell swapped ones from true ones; {} if unknown.

    Returns:
      `area` under the ROC curve (0.5: chance), `removed_of_swapped` and `removed_of_true`, the
      fractions that the threshold removes.
    """
    known = [r for r in rows if r["kind"] == "original" and "swapped" in r and "score" in r]
    swapped = np.array([r["swapped"] for r in known], bool)
    if not swapped.any() or swapped.all():
        return {}
    scores = np.array([r["score"] for r in known])
    wrong, right = scores[swapped], scores[~swapped]
    above = (right[:, None] > wrong).mean() + 0.5 * (right[:, None] == wrong).mean()
    removed = np.array([not r["kept"] for r in known])
    return {
        "area": float(above),
        "removed_of_swapped": float(removed[swapped].mean()),
        "removed_of_true": float(removed[~swapped].mean()),
    }


def write_report(path: Path, source: Source, rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    """Write the page.

    Args:
      rows: every candidate of the set; their images are read from `source`.
      about: settings, shown under the title.
    """
    sections = [("scores", "Scores", _scores(rows))]
    for number, (kind, title) in enumerate(KINDS.items()):
        own = [r for r in rows if (r["kind"], r["kept"]) == kind]
        if own:
            sections.append((f"kind-{number}", f"{title} ({len(own):,})", _grid(source, own)))
    settings = {k: str(v) for k, v in about.items() if v is not None}
    write_page(path, "CapFilt", settings, [s for s in sections if s[2]])


def _scores(rows: Sequence[Row]) -> str:
    series = {
        kind: [r["score"] for r in rows if r["kind"] == kind and "score" in r]
        for kind in ("original", "generated")
    }
    series = {kind: np.array(scores) for kind, scores in series.items() if scores}
    if not series:
        return ""
    cards = [("Probability of a match", inline_svg(figures.histogram(series), "histogram"), "")]
    found = detection(rows)
    if found:
        cards[0] = (
            *cards[0][:2],
            f"area under the ROC curve of true against swapped captions {found['area']:.3f}; "
            f"removed {found['removed_of_swapped']:.0%} of the swapped and "
            f"{found['removed_of_true']:.0%} of the true ones",
        )
    return card_grid(cards)


def _grid(source: Source, rows: Sequence[Row]) -> str:
    """Examples drawn at random with a fixed seed, the lowest score first."""
    chosen = np.random.default_rng(0).permutation(len(rows))[:SHOWN]
    shown = sorted((rows[i] for i in chosen), key=lambda r: r.get("score", 1.0))
    decode = transforms.parse("decode")
    tiles = []
    for row in shown:
        image = decode({"image": source[row["index"]]["image"]}, np.random.default_rng(0))["image"]
        score = f"<b>{row['score']:.3f}</b> " if "score" in row else ""
        tiles.append(
            f"<article>{image_tag(image, row['text'])}{score}<small>{row['index']}</small>"
            f"<p>{text(row['text'])}</p></article>"
        )
    note = (
        f'<p class="note">{len(shown)} of {len(rows):,}, drawn at random; lowest score first.</p>'
    )
    return f'{note}<div class="examples">{"".join(tiles)}</div>'
