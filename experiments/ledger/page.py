"""The ledger as text, as Markdown, and as a page with a plot."""

import html
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

from experiments.ledger.claims import KINDS
from experiments.ledger.outcome import FAIL, NOT_RUN, PASS, Outcome, summary
from mmjax.report import figures
from mmjax.report.markup import inline_svg, scrolled
from mmjax.report.page import write_page

TITLES = {
    "counted": "Counted in shapes",
    "planned": "Planned: compiled, not run",
    "reproduced": "Reproduced",
}
HEAD = ("claim", "", "published", "ours", "exact", "metric", "setting")
RESULTS = {True: PASS, False: FAIL, None: "–"}
# Ours over the published value, on a symmetric axis: nearer than a per mille is linear.
NEAR = 1e-3


def number(x: float | str | None) -> str:
    """A value for a table."""
    if x is None:
        return "–"
    if isinstance(x, str):
        return x
    return f"{x:,.0f}" if float(x).is_integer() else f"{x:,.4g}"


def cells(one: Outcome) -> tuple[str, ...]:
    """A row in the columns of `HEAD`."""
    claim = one.claim
    tolerance = claim.tolerance
    if isinstance(tolerance, int | float):
        tolerance = f"± {tolerance:g}"
    printed = number(claim.published)
    if claim.published is not None and tolerance not in ("exact", "rounding"):
        printed += f" ({tolerance})"
    scale = {"full": "the paper's setting", "ours": "our scale", None: ""}[claim.scale]
    setting = ", ".join(part for part in (claim.setting, scale) if part)
    ours = number(round(one.ours) if claim.kind == "counted" and one.ours else one.ours)
    return (claim.name, verdict(one), printed, ours, number(claim.exact), claim.metric, setting)


def verdict(one: Outcome) -> str:
    """The status; of a count by the original code and as printed, where they differ, both."""
    if one.status == NOT_RUN:
        return NOT_RUN
    if None not in (one.exact, one.printed) and one.exact != one.printed:
        off = f" ({100 * (one.ratio - 1):+.2g} %)" if one.ratio and not one.printed else ""
        return f"exact: {RESULTS[one.exact]}, as printed: {RESULTS[one.printed]}{off}"
    off = f" ({100 * (one.ratio - 1):+.2g} %)" if one.status == FAIL and one.ratio else ""
    return one.status + off


def headline(outcomes: Sequence[Outcome]) -> str:
    """Numbers of claims by kind and status, in a line each."""
    lines = []
    for kind in KINDS:
        mine = [one for one in outcomes if one.claim.kind == kind]
        if not mine:
            continue
        counts = summary(mine)
        line = f"{kind}: {counts[PASS]} pass, {counts[FAIL]} fail, {counts[NOT_RUN]} not run"
        exact = [one.exact for one in mine if one.exact is not None]
        printed = [one.printed for one in mine if one.printed is not None]
        if exact:
            line += f"; equal to the original code {sum(exact)} of {len(exact)}"
            line += f", as printed {sum(printed)} of {len(printed)}"
        lines.append(line)
    return "\n".join(lines)


def text(outcomes: Sequence[Outcome]) -> str:
    """A table for a terminal."""
    rows = [HEAD[:-1], *(cells(one)[:-1] for one in outcomes)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )


def markdown(outcomes: Sequence[Outcome], counted: str) -> str:
    """The whole ledger, with sources, commands and reasons.

    Args:
      counted: when, and with what code, the counts were made.
    """
    parts = [
        "# The ledger: what papers publish, and our numbers\n",
        "Written by `python -m experiments.papers`, from [papers.toml](papers.toml). *exact* was "
        "counted with the original code, *published* is as printed, which need not equal its own "
        f"model. A row that fails stays. Counted: {counted}.\n",
        "\n".join(f"- {line}" for line in headline(outcomes).splitlines()),
    ]
    for kind in KINDS:
        mine = [one for one in outcomes if one.claim.kind == kind]
        if not mine:
            continue
        parts.append(f"\n## {TITLES[kind]}\n")
        parts.append(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
        parts += [f"| {' | '.join(cells(one))} |" for one in mine]
        notes = [f"- {line}" for one in mine for line in remarks(one)]
        parts += ["\n" + "\n".join(notes)] if notes else []
    parts.append("\n## Sources\n")
    sources: dict[str, dict[str, None]] = {}
    for one in outcomes:
        claim = one.claim
        by = f" (exact: {claim.counted_by})" if claim.exact is not None else ""
        group = f"{claim.name.split('/')[0]}: {claim.paper}"
        sources.setdefault(group, {})[f"{claim.source}{by}"] = None
    parts += [f"- {group}. {'; '.join(found)}." for group, found in sources.items()]
    return "\n".join(parts) + "\n"


def remarks(one: Outcome) -> list[str]:
    """What is to be said about a claim: notes, how and when it was measured, why it was not."""
    claim, found = one.claim, []
    if claim.note:
        found.append(f"{claim.name}: {claim.note}")
    if claim.kind != "counted":
        when = f"{claim.date}, revision {claim.commit}" if claim.ours is not None else NOT_RUN
        why = f"; {claim.missing}" if claim.missing else ""
        found.append(f"{claim.name}: `{claim.command}` ({when}{why})")
    elif claim.missing:
        found.append(f"{claim.name}: {claim.missing}")
    return found


def write_html(path: Path, outcomes: Sequence[Outcome], about: dict[str, str]) -> None:
    """The ledger as a self-contained page."""
    sections = [("plot", "Ours over the published value", _plotted(outcomes))]
    for kind in KINDS:
        mine = [one for one in outcomes if one.claim.kind == kind]
        if mine:
            notes = "".join(f"<li>{html.escape(x)}</li>" for one in mine for x in remarks(one))
            body = scrolled(_table(mine), TITLES[kind])
            sections.append((kind, TITLES[kind], body + (f"<ul>{notes}</ul>" if notes else "")))
    write_page(path, "The ledger of papers", about, sections)


def _table(outcomes: Sequence[Outcome]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in HEAD)
    rows = []
    for one in outcomes:
        row = cells(one)
        tip = html.escape(f"{one.claim.paper}: {one.claim.source}", quote=True)
        mark = {PASS: "right", FAIL: "wrong"}.get(one.status, "")
        inner = "".join(f"<td>{html.escape(cell)}</td>" for cell in row[2:])
        rows.append(
            f'<tr><th title="{tip}">{html.escape(row[0])}</th>'
            f'<td><span class="{mark}">{html.escape(row[1])}</span></td>{inner}</tr>'
        )
    head = f"<thead><tr>{head}</tr></thead>"
    return f'<table class="results">{head}<tbody>{"".join(rows)}</tbody></table>'


def _plotted(outcomes: Sequence[Outcome]) -> str:
    note = (
        '<p class="note">A dot for each claim with a number of ours; right of the line ours is '
        "larger. The axis is linear within a per mille of equality, logarithmic beyond.</p>"
        f"<p>{'<br>'.join(map(html.escape, headline(outcomes).splitlines()))}</p>"
    )
    shown = [one for one in outcomes if one.ratio]
    return note + inline_svg(plot(shown), "ours over published") if shown else ""


@matplotlib.rc_context(figures.STYLE)
def plot(outcomes: Sequence[Outcome]) -> bytes:
    """An SVG of ours over the published value, a row for each group."""
    groups = list(dict.fromkeys(one.claim.name.split("/")[0] for one in outcomes))
    figure, axes = figures.new_figure(9.0, 0.8 + 0.22 * len(groups))
    colors = {PASS: figures.COLORS[2], FAIL: figures.COLORS[1]}
    for status, color in colors.items():
        mine = [one for one in outcomes if one.status == status]
        x = [_place(one.ratio) for one in mine]
        y = [len(groups) - groups.index(one.claim.name.split("/")[0]) for one in mine]
        axes.plot(x, y, "o", color=color, alpha=0.7, markersize=5, linestyle="", label=status)
    axes.axvline(0, color=figures.MUTED, linewidth=1)
    ticks = (-0.9, -0.1, -0.01, 0, 0.01, 0.1, 1)
    low, high = axes.get_xlim()
    ticks = [t for t in ticks if low <= _place(1 + t) <= high]
    axes.set_xticks(
        [_place(1 + t) for t in ticks], [f"{100 * t:+g} %" if t else "0" for t in ticks]
    )
    axes.set_yticks(range(len(groups), 0, -1), groups)
    axes.legend(loc="best")
    return figures.as_svg(figure)


def _place(ratio: float) -> float:
    """Where a ratio is on the axis."""
    off = math.log(ratio)
    return math.copysign(math.log1p(abs(off) / NEAR), off)
