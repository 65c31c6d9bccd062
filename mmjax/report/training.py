"""Whether a training was healthy."""

import dataclasses
import html
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmjax.report.losses import Curve, Losses, Rows, curve
from mmjax.workdir.manifest import read_manifest

HELD_OUT_RISE = 1.1  # of the lowest held-out loss
GRADIENT_SPIKE = 10.0  # times the median gradient norm


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing to know about a training; `ok` is None where it is neither good nor bad."""

    name: str
    value: str
    ok: bool | None = None


def checks(workdir: str | os.PathLike, rows: Rows, losses: Losses | None) -> list[Check]:
    """Loss, gradient norm, bad steps, restarts, bad records and speed of a run, as far as its
    workdir and its metrics record them."""
    found = []
    if losses is not None:
        found.append(_training_loss(losses))
        found += [_held_out(name, points) for name, points in losses.held_out.items()]
    found += _gradients(*curve(rows, "train/grad_norm"))
    logged = [r for r in rows if any(name.startswith("train/") for name in r)]
    if logged:
        names = ("train/loss", "train/grad_norm")
        bad = sum(not all(np.isfinite(r.get(name, 0.0)) for name in names) for r in logged)
        value = f"in {bad} of {len(logged)} log lines" if bad else "never"
        found.append(Check("Not finite", value, not bad))
    starts = read_manifest(workdir).get("starts", [])
    if starts:
        again = ", ".join(f"step {start['step']:,}" for start in starts[1:])
        value = f"{len(starts) - 1}, from {again}" if again else "none"
        found.append(Check("Restarts", value))
    records = Path(workdir) / "bad_records.jsonl"
    if records.exists():
        with open(records, "rb") as file:
            found.append(Check("Bad records", f"{sum(1 for _ in file):,} skipped"))
    return found + _speed(rows)


def _training_loss(losses: Losses) -> Check:
    # Means of a tenth of the run: single batches vary.
    _, values = losses.training
    part = max(1, len(values) // 10)
    first, last = float(np.mean(values[:part])), float(np.mean(values[-part:]))
    name = "Loss" if losses.name == "loss" else f"Loss ({losses.name})"
    ok = bool(last < first) if len(values) > 1 else None
    return Check(name, f"{first:.3g} → {last:.3g}", ok)


def _held_out(name: str, points: Curve) -> Check:
    steps, values = points
    said, ok = f"{values[-1]:.3g} at the end", None
    if len(values) > 1:
        at = int(np.argmin(values))
        low = values[at]
        said += f", lowest {low:.3g} at step {steps[at]:,.0f}"
        ok = bool(values[-1] <= (low * HELD_OUT_RISE if low > 0 else low))
    return Check("Held out", f"{said} ({name})", ok)


def _gradients(steps: Sequence[float], norms: Sequence[float]) -> list[Check]:
    if not norms:
        return []
    median, at = float(np.median(norms)), int(np.argmax(norms))
    value = f"median {median:.2g}, largest {norms[at]:.2g} at step {steps[at]:,.0f}"
    return [Check("Gradient norm", value, bool(norms[at] <= GRADIENT_SPIKE * median))]


def _speed(rows: Rows) -> list[Check]:
    _, rates = curve(rows, "examples_per_second")
    if not rates:
        return []
    value = f"{np.median(rates):,.0f} examples/s"
    _, seconds = curve(rows, "step_seconds")
    if seconds:
        value += f", {np.median(seconds):.3g} s a step"
    for name, label in (("data_wait_share", "waiting for data"), ("mfu", "MFU")):
        _, fractions = curve(rows, name)
        if fractions:
            value += f", {np.median(fractions):.0%} {label}"
    return [Check("Throughput", value)]


def checks_html(found: Sequence[Check]) -> str:
    """The checks as a list, with marks on those that are good or bad."""
    marks = {
        True: '<span class="mark good" role="img" aria-label="good">✓</span>',
        False: '<span class="mark bad" role="img" aria-label="look at this">!</span>',
        None: '<span class="mark" aria-hidden="true">·</span>',
    }
    lines = "".join(
        f"<li>{marks[c.ok]}<b>{html.escape(c.name)}</b><span>{html.escape(c.value)}</span></li>"
        for c in found
    )
    if not lines:
        return ""
    note = (
        "✓: the loss fell; the held-out loss is within "
        f"{HELD_OUT_RISE - 1:.0%} of its lowest; no gradient norm (a mean between log lines) is "
        f"above {GRADIENT_SPIKE:g} times the median; all is finite."
    )
    return f'<ul class="checks">{lines}</ul><p class="note last">{note}</p>'
