"""The report: a self-contained HTML file with embedded images and no network requests."""

import html
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmjax import storage
from mmjax.report import curves, headline, tables, training
from mmjax.report.gather import ReportData
from mmjax.report.losses import compare_losses
from mmjax.report.markup import facts as facts_list
from mmjax.report.markup import folded
from mmjax.report.sections.table import SECTIONS
from mmjax.report.style import STYLE
from mmjax.workdir.metrics import read_metrics

HTMLSection = tuple[str, str, str]  # (key, name, HTML)


def write_report(
    path: Path,
    workdir: str | os.PathLike,
    *,
    title: str,
    facts: Mapping[str, str],
    results: Mapping[str, Mapping[str, float]],
    data: ReportData,
    config: Mapping[str, Any],
    details: Mapping[str, str] | None = None,
    baselines: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    fingerprints: Mapping[str, str] | None = None,
    before: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Write the report of a run, with training curves from `<workdir>/metrics.jsonl`.

    Its first screen has the facts, the headline metric beside the baselines, and whether training
    was healthy; then come the sections of `data`, all results, and how the run was made.

    Args:
      path: the file, in a folder that is made if missing.
      title: the run's name.
      facts: shown under the title, in order, such as {"Model": "clip, 5.4 M parameters"}.
      results: evaluator -> metric -> value, the run's final metrics.
      data: from `gather_report`.
      config: the resolved config, shown in full at the end.
      details: shown above the config.
      baselines: name of a baseline -> evaluator -> metric -> value.
      fingerprints: evaluator -> hash of its config.
      before: as results, before training.
    """
    rows, weights = read_metrics(workdir), config.get("loss_weights", {})
    losses = compare_losses(rows, weights)
    others = {**({tables.BEFORE: before} if before else {}), **(baselines or {})}
    healthy = training.checks_html(training.checks(workdir, rows, losses))
    groups = headline.headline(results, others, data.examples)
    sections = [
        ("headline", "Result", headline.headline_html(groups, data.examples)),
        ("training", "Training", healthy + curves.loss_curve(losses)),
        ("curves", "Curves", curves.main_curves(rows)),
        *_sections(data),
        (
            "results",
            "All results",
            tables.results(results, baselines or {}, fingerprints or {}, before),
        ),
        ("more-curves", "More curves", curves.more_curves(rows, weights)),
        ("run", "Run", facts_list(details or {}) + _config(config)),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_page(path, title, facts, [section for section in sections if section[2]])


def _sections(data: ReportData) -> Iterable[HTMLSection]:
    for key, section in SECTIONS.items():
        for i, (name, found) in enumerate(data.sections.get(key, {}).items()):
            content = section.html(found, data.seed)
            if section.once:
                yield key, section.title, content
            else:
                yield f"{key}-{i}", f"{section.title}: {name}", content


def write_page(
    path: Path,
    title: str,
    about: Mapping[str, str],
    sections: Iterable[HTMLSection],
) -> None:
    """Write a page: its title, facts about it, and sections of (key, name, HTML)."""
    sections = list(sections)
    menu = "".join(f'<a href="#{key}">{html.escape(name)}</a>' for key, name, _ in sections)
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-name"><h2 id="{key}-name">'
        f"{html.escape(name)}</h2>{content}</section>"
        for key, name, content in sections
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<header><h1>{html.escape(title)}</h1>{facts_list(about)}</header>"
        f'<nav aria-label="Sections">{menu}</nav><main>{body}</main></body></html>\n'
    )
    storage.write(path, page)


def _config(config: Mapping[str, Any]) -> str:
    text = json.dumps(config, indent=2, ensure_ascii=False, default=str)
    return folded("Show the resolved config", f'<pre tabindex="0">{html.escape(text)}</pre>')
