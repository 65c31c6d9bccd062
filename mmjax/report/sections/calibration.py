"""How far probabilities can be trusted: the reliability diagram and the risk-coverage curve."""

import dataclasses
import html

import numpy as np

from mmjax.evals.calibration import Calibrated
from mmjax.evals.metrics.calibration import Reliability, reliability
from mmjax.evals.metrics.selective import risk_coverage
from mmjax.evals.metrics.uncertainty import Fitted, confidences, uncertainty_metrics
from mmjax.report import figures
from mmjax.report.evaluated import Evaluated
from mmjax.report.markup import card_grid, facts, inline_svg
from mmjax.report.sections.section import Section

POINTS = 400  # of a risk-coverage curve


@dataclasses.dataclass(frozen=True)
class Curves:
    """Of one set of probabilities: its bins, its risk at some coverages, its metrics."""

    bins: Reliability
    coverage: np.ndarray  # [k]
    risk: np.ndarray  # [k]
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Trust:
    """The curves of an evaluation, and those after a fitted temperature, if there is one."""

    source: str
    given: Curves
    calibrated: Curves | None
    fitted: Fitted | None


def curves(logits: np.ndarray, labels: np.ndarray, bins: int) -> Curves:
    """The curves of logits `[N, C]` and labels `[N]`."""
    confidence, right = confidences(logits, labels)
    coverage, risk = risk_coverage(confidence, right)
    some = np.unique(np.linspace(0, len(coverage) - 1, POINTS).round().astype(int))
    metrics = uncertainty_metrics(logits, labels, bins)
    return Curves(reliability(confidence, right, bins), coverage[some], risk[some], metrics)


def _collect(evaluated: Evaluated) -> Trust | None:
    evaluator = evaluated.evaluator
    if not isinstance(evaluator, Calibrated):
        return None
    logits, labels, _ = evaluated.scores
    fitted = evaluator.fitted(evaluated.variables)
    calibrated = None
    if fitted is not None:
        calibrated = curves(
            np.asarray(logits, np.float64) / fitted.temperature, labels, evaluator.bins
        )
    given = curves(logits, labels, evaluator.bins)
    return Trust(evaluated.name, given, calibrated, fitted)


def _html(data: Trust, seed: int) -> str:
    shown = {"as given": data.given}
    if data.calibrated is not None:
        shown[f"temperature {data.fitted.temperature:.2f}"] = data.calibrated
    ece = {name: f"{c.metrics['ece']:.3f}" for name, c in shown.items()}
    said = ", ".join(f"{value} {name}" for name, value in ece.items())
    bins = {name: (c.bins.confidence, c.bins.accuracy) for name, c in shown.items()}
    last = [*shown.values()][-1]
    chosen = data.fitted.coverage if data.fitted else None
    risks = f"AURC {last.metrics['aurc']:.4f}, {last.metrics['excess_aurc']:.4f} above the best"
    diagram = inline_svg(figures.reliability(bins), f"accuracy by confidence; error {said}")
    curve = figures.risk_coverage(last.coverage, last.risk, chosen)
    cards = [
        ("Reliability", diagram, f"calibration error {said}"),
        ("Risk and coverage", inline_svg(curve, f"error rate by coverage, {risks}"), risks),
    ]
    tiles = {
        f"{title}, {name}": f"{c.metrics[key]:.3f}"
        for key, title in (("nll", "Log loss"), ("brier", "Brier score"))
        for name, c in shown.items()
    }
    if data.fitted is not None:
        tiles[f"Threshold for {100 * data.fitted.coverage:.0f} % coverage"] = (
            f"{data.fitted.threshold:.3f}"
        )
    where = " Temperature and threshold are fitted on other examples." if data.fitted else ""
    note = f'<p class="note">Measured on {html.escape(data.source)}.{where}</p>'
    return note + facts(tiles) + card_grid(cards)


SECTION = Section("Calibration", _collect, _html)
