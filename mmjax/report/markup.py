"""Pieces of HTML that several pages use."""

import base64
import html
from collections.abc import Iterable, Mapping

import numpy as np

from mmjax.report import figures


def inline_svg(data: bytes, about: str) -> str:
    """A figure as an image element; `about` is its alt text."""
    return (
        f'<img class="figure" alt="{html.escape(about)}" src="{_data_url("image/svg+xml", data)}">'
    )


def image_tag(image: np.ndarray, about: str, kind: str = "", limit: int = 192) -> str:
    """An image uint8 `[H, W, 3]`, reduced to `limit` pixels a side, as an image element."""
    url = _data_url(*figures.encode_image(image, limit))
    return f'<img class="image {kind}" alt="{html.escape(about)}" src="{url}">'


def text(text: str) -> str:
    """A caption."""
    # Captions may be in any script: the browser detects the text direction.
    return f'<bdi dir="auto">{html.escape(text)}</bdi>'


def card_grid(cards: Iterable[tuple[str, str, str]]) -> str:
    """Cards of (title, content, note)."""
    made = [
        f"<figure><figcaption><b>{html.escape(title)}</b>"
        f"{f'<span>{html.escape(note)}</span>' if note else ''}</figcaption>{content}</figure>"
        for title, content, note in cards
    ]
    return f'<div class="cards">{"".join(made)}</div>' if made else ""


def facts(about: Mapping[str, str]) -> str:
    """Names and values, side by side."""
    pairs = "".join(
        f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd></div>"
        for k, v in about.items()
    )
    return f"<dl>{pairs}</dl>" if pairs else ""


def folded(summary: str, content: str) -> str:
    """Content that a click opens."""
    return f"<details><summary>{html.escape(summary)}</summary>{content}</details>"


def scrolled(content: str, about: str) -> str:
    """Content that may be wider than the page: it scrolls, from the keyboard too."""
    label = html.escape(about)
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">{content}</div>'


def _data_url(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
