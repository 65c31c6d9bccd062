"""The report's figures: arrays in, SVG or PNG bytes out."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from PIL import Image

INK, MUTED, GRID, AXIS = "#1d2433", "#667085", "#e6e9ef", "#c9ced8"
COLORS = ("#2b6cb0", "#c9570f", "#1f8a7c", "#8b5cb5", "#c2417c", "#777a12", "#55606e")
POSITIVE, NEGATIVE = COLORS[2], "#98a2b3"
IMAGE, TEXT = COLORS[0], COLORS[1]
DARK = {  # what these become on a dark page
    INK: "#e8eaf0",
    MUTED: "#a5aebd",
    GRID: "#2c3342",
    AXIS: "#4a5468",
    COLORS[0]: "#7fb2e8",
    COLORS[1]: "#f0995a",
    COLORS[2]: "#5cc8b8",
    COLORS[3]: "#bb96dd",
    COLORS[4]: "#ec86b3",
    COLORS[5]: "#c3c65a",
    COLORS[6]: "#a5aebd",
}

CARD = (4.5, 2.7)  # inches; three fit side by side

STYLE = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "svg.fonttype": "path",  # the same look on every machine
    "axes.edgecolor": AXIS,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


def new_figure(width: float, height: float) -> tuple[Figure, Any]:
    """A figure of so many inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def as_svg(figure: Figure) -> bytes:
    """The bytes of an SVG whose colors follow the reader's light or dark scheme."""
    buffer = io.BytesIO()
    # The layout uses the tick labels of the previous draw, so draw once before saving.
    figure.draw_without_rendering()
    # Without a date and with fixed ids, the same run gives the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "mmjax"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _themed(buffer.getvalue().decode()).encode()


def _themed(svg: str) -> str:
    """The figure with its colors as variables, which follow the reader's light or dark scheme."""
    names = {color: f"--c{i}" for i, color in enumerate(DARK)}
    light = "".join(f"{name}:{color};" for color, name in names.items())
    dark = "".join(f"{names[color]}:{other};" for color, other in DARK.items())
    for color, name in names.items():
        svg = svg.replace(f": {color}", f": var({name})")
    style = f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
    start = svg.index(">", svg.index("<svg")) + 1
    return f"{svg[:start]}<style>{style}</style>{svg[start:]}"


def smooth(values: np.ndarray, half_life: float) -> np.ndarray:
    """Bias-corrected exponential moving average `[n]` of a series; half_life in points."""
    keep = 0.5 ** (1.0 / half_life)
    total = weight = 0.0
    result = np.empty(len(values))
    for i, value in enumerate(values):
        total, weight = keep * total + value, keep * weight + 1.0
        result[i] = total / weight
    return result


@matplotlib.rc_context(STYLE)
def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    percent: bool = False,
    log: bool = False,
    zero: bool = False,
    smoothed: bool = False,
    reference: tuple[float, str] | None = None,
    unit: str = "",
    height: float = CARD[1],
) -> bytes:
    """Curves over steps.

    Args:
      series: name -> (steps, values); percent: values are fractions; log: a logarithmic axis;
        zero: the axis starts at 0.
      smoothed: draw the series faintly under their running mean; reference: (value, name) of a
        dashed line; unit: written beside the axis; height: in inches.
    """
    figure, axes = new_figure(CARD[0], height)
    for color, (name, (steps, values)) in zip(_cycle(len(series)), series.items()):
        x, y = np.asarray(steps, float), np.asarray(values, float) * (100 if percent else 1)
        if smoothed and len(y) > 20 and np.isfinite(y).all():
            axes.plot(x, y, color=color, alpha=0.22, linewidth=1)
            y = smooth(y, len(y) / 50)
        marker = "o" if len(x) <= 15 else None
        axes.plot(x, y, color=color, linewidth=1.8, marker=marker, markersize=3.5, label=name)
    if reference:
        axes.axhline(reference[0], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            reference[1],
            (0.01, reference[0]),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=8,
            color=MUTED,
        )
    if log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        several = MaxNLocator(5, steps=[1, 2, 5, 10]) if high < 10 * low else None
        axes.yaxis.set_major_locator(several or LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("step")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    if percent:
        axes.yaxis.set_major_formatter(lambda v, _: f"{v:g} %")
    if percent or zero:
        axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    if len(series) > 1:
        axes.legend(loc="best")
    return as_svg(figure)


def _cycle(count: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(count)]


@matplotlib.rc_context(STYLE)
def similarities(edges: np.ndarray, positives: np.ndarray, negatives: np.ndarray) -> bytes:
    """Densities of the cosines of matching and of other image-text pairs.

    Args:
      edges: `[bins + 1]`; positives, negatives: counts `[bins]`.
    """
    figure, axes = new_figure(*CARD)
    centers = (edges[1:] + edges[:-1]) / 2
    width = edges[1] - edges[0]
    for counts, name, color in (
        (negatives, "other pairs", NEGATIVE),
        (positives, "matching pairs", POSITIVE),
    ):
        density = counts / max(1, counts.sum()) / width
        axes.fill_between(centers, density, step="mid", color=color, alpha=0.3, linewidth=0)
        axes.step(centers, density, where="mid", color=color, linewidth=1.5, label=name)
    used = np.flatnonzero(positives + negatives)
    if len(used):
        axes.set_xlim(centers[used[0]] - 3 * width, centers[used[-1]] + 3 * width)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("cosine similarity")
    axes.set_ylabel("density")
    axes.legend(loc="best")
    return as_svg(figure)


@matplotlib.rc_context(STYLE)
def histogram(series: Mapping[str, np.ndarray], bins: int = 40) -> bytes:
    """SVG: how often values in [0, 1] occur, as a fraction of each series."""
    figure, axes = new_figure(*CARD)
    edges = np.linspace(0, 1, bins + 1)
    for color, (name, values) in zip(COLORS, series.items()):
        weights = np.full(len(values), 1 / len(values))
        axes.hist(values, edges, weights=weights, color=color, alpha=0.6, label=name)
    axes.set_xlim(0, 1)
    axes.set_ylabel("fraction")
    axes.legend()
    return as_svg(figure)


@matplotlib.rc_context(STYLE)
def reliability(series: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> bytes:
    """SVG: accuracy by confidence, (confidence [k], accuracy [k]) of each, and the diagonal."""
    figure, axes = new_figure(*CARD)
    axes.plot([0, 1], [0, 1], color=AXIS, linewidth=1, linestyle="--")
    for color, (name, (confidence, accuracy)) in zip(COLORS, series.items()):
        axes.plot(confidence, accuracy, "o-", color=color, markersize=3, label=name)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.legend(loc="best")
    return as_svg(figure)


@matplotlib.rc_context(STYLE)
def risk_coverage(coverage: np.ndarray, risk: np.ndarray, chosen: float | None) -> bytes:
    """SVG: the error rate of the most confident examples, by their fraction; a line at `chosen`."""
    figure, axes = new_figure(*CARD)
    axes.plot(coverage, risk, color=COLORS[0], linewidth=1.5)
    if chosen is not None:
        axes.axvline(chosen, color=COLORS[1], linewidth=1, linestyle="--")
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("coverage")
    axes.set_ylabel("error rate")
    return as_svg(figure)


@matplotlib.rc_context(STYLE)
def modality_plane(image_points: np.ndarray, text_points: np.ndarray) -> bytes:
    """Images and texts on their common principal axes, and the gap between their centroids."""
    figure, axes = new_figure(*CARD)
    centroids = []
    for points, name, color in (
        (image_points, "images", IMAGE),
        (text_points, "texts", TEXT),
    ):
        axes.scatter(*points.T, s=7, color=color, alpha=0.35, linewidth=0, rasterized=True)
        axes.scatter([], [], s=22, color=color, label=name)
        centroids.append(points.mean(axis=0))
    x, y = np.stack(centroids).T
    axes.plot(x, y, color=INK, linewidth=1.4, label="centroids")
    axes.scatter(x, y, s=46, color=[IMAGE, TEXT], edgecolor=INK, linewidth=1.2, zorder=3)
    axes.set_xlabel("first principal axis")
    axes.set_ylabel("second")
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(loc="best")
    return as_svg(figure)


@matplotlib.rc_context(STYLE)
def trade_off(rows: Sequence[Mapping[str, float]], target: str, retained: Sequence[str]) -> bytes:
    """Interpolations of two models: the target metric on the x-axis, retained ones on the y-axis.

    Args:
      rows: metric -> value, and alpha, in the order of alpha.
    """
    figure, axes = new_figure(6.0, 4.2)
    across = [row[target] for row in rows]
    for name, color in zip(retained, _cycle(len(retained))):
        up = [row[name] for row in rows]
        axes.plot(across, up, color=color, marker="o", markersize=4, linewidth=1.5, label=name)
        for row, x, y in zip(rows, across, up):
            place = {"textcoords": "offset points", "xytext": (5, 4)}
            axes.annotate(f"{row['alpha']:g}", (x, y), **place, fontsize=7.5, color=MUTED)
    axes.set_xlabel(f"{target} (target)")
    axes.set_ylabel("retained")
    axes.set_title("one point per α: 0 is the base, 1 the tuned model", fontsize=9.5, loc="left")
    axes.legend(loc="best")
    return as_svg(figure)


@matplotlib.rc_context(STYLE)
def confusion(matrix: np.ndarray) -> bytes:
    """Counts `[C, C]`, normalized by row, as a heat map; for many classes."""
    size = 6.4
    figure, axes = new_figure(size, size * 0.92)
    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    drawn = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.grid(False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    figure.colorbar(drawn, ax=axes, shrink=0.7, label="fraction of the true class")
    return as_svg(figure)


def attention_overlay(image: np.ndarray, weights: np.ndarray, size: int = 192) -> np.ndarray:
    """The image with its attention as an overlay: uint8 `[size, size * W / H, 3]`.

    Args:
      image: uint8 `[H, W, 3]`; weights: `[rows, columns]`, scaled here to [0, 1].
    """
    shape = (max(1, round(size * image.shape[1] / image.shape[0])), size)
    low, high = weights.min(), weights.max()
    scaled = ((weights - low) / max(float(high - low), 1e-12)).astype(np.float32)
    heat = Image.fromarray(scaled).resize(shape, Image.Resampling.BICUBIC)
    heat = np.clip(np.asarray(heat), 0.0, 1.0)
    color = matplotlib.colormaps["inferno"](heat)[..., :3]
    base = np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.LANCZOS)) / 255.0
    # On a gray image, so that all color is attention.
    gray = base.mean(axis=-1, keepdims=True)
    alpha = (0.30 + 0.45 * heat)[..., None]
    return np.round(255 * ((1 - alpha) * gray + alpha * color)).astype(np.uint8)


def encode_image(image: np.ndarray, limit: int = 192) -> tuple[str, bytes]:
    """(MIME type, bytes) of an image of at most `limit` pixels per side, as PNG or JPEG.

    The smaller encoding is used: usually PNG for drawings, JPEG for photographs.
    """
    shown = Image.fromarray(image)
    scale = min(1.0, limit / max(shown.size))
    if scale < 1.0:
        shape = [max(1, math.floor(s * scale)) for s in shown.size]
        shown = shown.resize(shape, Image.Resampling.LANCZOS)
    coded = {}
    for kind, settings in (("png", {"optimize": True}), ("jpeg", {"quality": 90})):
        buffer = io.BytesIO()
        shown.save(buffer, format=kind, **settings)
        coded[f"image/{kind}"] = buffer.getvalue()
    return min(coded.items(), key=lambda item: len(item[1]))
