"""Training curves as cards."""

from collections.abc import Mapping
from typing import Any

from mmjax.report import figures
from mmjax.report.losses import Curve, Losses, Rows, curve
from mmjax.report.markup import card_grid, inline_svg

Card = tuple[str, str, str]  # title, HTML, note


def series(rows: Rows, names: Mapping[str, str]) -> dict[str, Curve]:
    """label -> curve of the metrics (metric -> label) with at least two points."""
    found: dict[str, Curve] = {}
    for name, label in names.items():
        points = curve(rows, name)
        # A total with a single term equals that term: only one curve is drawn.
        if len(points[0]) > 1 and points not in found.values():
            found[label] = points
    return found


def loss_curve(losses: Losses | None) -> str:
    """The loss in training and on held-out data."""
    if losses is None or len(losses.training[0]) < 2:
        return ""
    compared = {"training": losses.training}
    compared |= {f"held out: {name}": points for name, points in losses.held_out.items()}
    settings = {"smoothed": True, "unit": losses.name, "height": 2.1}
    return card_grid(_card("Loss", "bold: running mean", compared, **settings))


def main_curves(rows: Rows) -> str:
    """Gradient norm, throughput, learning rates."""
    norms = series(rows, {"train/grad_norm": "gradient norm"})
    speeds = series(rows, {"examples_per_second": "examples/s"})
    names = list(dict.fromkeys(name for row in rows for name in row))
    rates = [n for n in names if n.startswith("learning_rate") or n.endswith("/learning_rate")]
    gradient = {"smoothed": True, "log": True, "unit": "L2 norm of all gradients"}
    cards = [
        *_card("Gradient norm", "", norms, **gradient),
        *_card("Throughput", "", speeds, zero=True, unit="examples per second"),
        *_card("Learning rate", "", series(rows, {n: n for n in rates}), unit="learning rate"),
    ]
    return card_grid(cards)


def more_curves(rows: Rows, weights: Mapping[str, Any]) -> str:
    """The terms of the loss, metrics over training, temperature.

    Args:
      weights: `config.loss_weights`.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    trained = [n for n in names if n.startswith("train/")]
    evaluated = [n for n in names if n.startswith("eval/")]
    recalls = [n for n in evaluated if n.endswith("text_to_image/recall@1")]
    kind = "text → image, Recall@1" if recalls else "top-1"
    recalls = recalls or [n for n in evaluated if n.endswith("/top1")]
    terms = [n for n in trained if n.endswith("loss") or n.removeprefix("train/") in weights]
    held_out = [n for n in evaluated if n.split("/")[-1] in {"loss", *weights}]
    accuracies = [n for n in trained if n.endswith(("accuracy", "top1"))]
    groups = [
        ("Terms of the loss", "bold: running mean", terms, {"smoothed": True, "unit": "loss"}),
        ("Held-out loss", "no dropout, no augmentation", held_out, {"unit": "loss"}),
        ("Accuracy in the batch", "", accuracies, {"smoothed": True, "percent": True}),
        ("Evaluation", kind, recalls, {"percent": True}),
    ]
    cards = []
    for title, note, group, settings in groups:
        labels = {n: n.removeprefix("train/").removeprefix("eval/") for n in group}
        cards += _card(title, note, series(rows, labels), **settings)
    return card_grid([*cards, *_temperature(rows)])


def _card(title: str, note: str, curves: Mapping[str, Curve], **settings: Any) -> list[Card]:
    """The card of some curves; none if there are none."""
    if not curves:
        return []
    ends = ", ".join(f"{label} {values[-1]:.3g}" for label, (_, values) in curves.items())
    about = f"{title} over steps; at the end: {ends}"
    return [(title, inline_svg(figures.lines(curves, **settings), about), note)]


def _temperature(rows: Rows) -> list[Card]:
    curves = series(rows, {"train/logit_scale": "logit scale"})
    if not curves:
        return []
    _, values = curves["logit scale"]
    # CLIP's cap on the scale is shown only if the run comes near it.
    cap = (100.0, "cap") if max(values) > 70 else None
    note = f"1 / τ, from {values[0]:.1f} to {values[-1]:.1f}"
    return _card("Temperature", note, curves, reference=cap)
