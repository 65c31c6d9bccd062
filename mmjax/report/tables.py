"""The report's tables, as HTML."""

import html
import math
from collections.abc import Mapping

from mmjax.report.markup import scrolled
from mmjax.workdir.tables import by_columns, by_rows

Metrics = Mapping[str, float]
DIRECTIONS = {"text_to_image": "Text → image", "image_to_text": "Image → text"}
RETRIEVAL = {
    "recall@1": "R@1",
    "recall@5": "R@5",
    "recall@10": "R@10",
    "mrr": "MRR",
    "map": "mAP",
    "median_rank": "median",
}
CLASSIFICATION = {"top1": "top-1", "top5": "top-5", "mean_per_class": "mean of classes"}
BEFORE, CHANGE = "before training", "change"
_LOWER = ("median_rank", "alignment", "wer", "cer", "perplexity", "loss")
_LOWER += ("bits_per_code", "bits_per_image")
_LOWER += ("nll", "brier", "ece", "ece_adaptive", "aurc", "excess_aurc", "aurc_vacuity")


def lower_is_better(metric: str) -> bool:
    """Whether lower values of a metric are better."""
    name = metric.split("/")[-1]
    return name in _LOWER or name.startswith(("fid_", "kid_"))  # of any feature extractor


def results(
    results: Mapping[str, Metrics],
    baselines: Mapping[str, Mapping[str, Metrics]],
    fingerprints: Mapping[str, str],
    before: Mapping[str, Metrics] | None = None,
) -> str:
    """Tables of every evaluator's metrics, with those before training, the changes, and baselines.

    Args:
      baselines: name -> evaluator -> metrics; shown for the same evaluators.
    """
    if before:
        baselines = {BEFORE: before, CHANGE: _changes(before, results), **baselines}
    retrieval = {n: r for n, r in results.items() if "text_to_image/recall@1" in r}
    classes = {n: r for n, r in results.items() if "top1" in r}
    others = {n: r for n, r in results.items() if n not in retrieval and n not in classes}
    made = []
    if retrieval:
        columns = {f"{way}/{m}": label for way in DIRECTIONS for m, label in RETRIEVAL.items()}
        groups = [(label, len(RETRIEVAL)) for label in DIRECTIONS.values()]
        made.append(_table(retrieval, columns, groups, baselines, fingerprints))
    if classes:
        rows = {n: r for n, r in by_rows(_flat(classes)).items() if "top1" in r}
        made.append(_table(rows, CLASSIFICATION, [], baselines, fingerprints))
    for rows in by_columns(_flat(others)):
        columns = {name: name.replace("_", " ") for row in rows.values() for name in row}
        made.append(_table(rows, columns, [], baselines, fingerprints))
    return "".join(made)


def _flat(results: Mapping[str, Metrics]) -> dict[str, float]:
    """ "evaluation/metric" -> value."""
    return {f"{name}/{metric}": v for name, row in results.items() for metric, v in row.items()}


def _changes(before: Mapping[str, Metrics], after: Mapping[str, Metrics]) -> dict[str, Metrics]:
    """evaluation -> metric -> difference after - before."""
    return {
        name: {k: after[name][k] - v for k, v in row.items() if k in after[name]}
        for name, row in before.items()
        if name in after
    }


def _table(
    results: Mapping[str, Metrics],
    columns: Mapping[str, str],
    groups: list[tuple[str, int]],
    baselines: Mapping[str, Mapping[str, Metrics]],
    fingerprints: Mapping[str, str],
) -> str:
    any_baseline = any(name in b for b in baselines.values() for name in results)
    lead = 2 if any_baseline else 1
    top = "".join(
        f'<th scope="colgroup" colspan="{n}" class="group">{html.escape(g)}</th>' for g, n in groups
    )
    top = f'<tr><td colspan="{lead}"></td>{top}</tr>' if groups else ""
    edges = {sum(n for _, n in groups[:i]) for i in range(len(groups))} if groups else {0}
    head = '<th scope="col">evaluation</th>'
    head += '<th scope="col">model</th>' if any_baseline else ""
    head += "".join(
        f'<th scope="col" class="number{" edge" if i in edges else ""}">{html.escape(label)}</th>'
        for i, label in enumerate(columns.values())
    )
    body = ""
    for name, mine in results.items():
        models = {"this run": mine} | {b: r[name] for b, r in baselines.items() if name in r}
        for place, (model, values) in enumerate(models.items()):
            cells = ""
            if place == 0:
                mark = fingerprints.get(name)
                about = f' title="evaluator config {html.escape(mark)}"' if mark else ""
                code = f"<small>{html.escape(mark)}</small>" if mark else ""
                span = f'scope="rowgroup" rowspan="{len(models)}"{about}'
                cells += f"<th {span}>{html.escape(name)}{code}</th>"
            if any_baseline:
                cells += f'<th scope="row" class="model">{html.escape(model)}</th>'
            for i, column in enumerate(columns):
                best = len(models) > 1 and _is_best(column, model, models)
                kind = f"number{' edge' if i in edges else ''}{' best' if best else ''}"
                shown = (change if model == CHANGE else number)(column, values.get(column))
                cells += f'<td class="{kind}">{shown}</td>'
            start = "first" if place == 0 else ""
            body += f'<tr class="{start}{"" if place == 0 else "baseline"}">{cells}</tr>'
    kind = "results wide" if groups else "results"
    table = (
        f'<table class="{kind}"><thead>{top}<tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )
    return scrolled(table, "results of " + ", ".join(results))


def _is_best(column: str, model: str, models: Mapping[str, Metrics]) -> bool:
    known = {m: v[column] for m, v in models.items() if column in v and m != CHANGE}
    if model not in known:
        return False
    best = min if lower_is_better(column) else max
    return known[model] == best(known.values())


def number(metric: str, value: float | None) -> str:
    """A metric as text: fractions in percent, other values unscaled."""
    if value is None or math.isnan(value):
        return "–"
    name = metric.split("/")[-1]
    if name.startswith(("recall@", "top", "mean_per_class")) or name in ("map", "mrr"):
        return f"{100 * value:.1f}"
    if name == "median_rank":
        return f"{value:g}"
    return f"{value:.3g}"


def change(metric: str, value: float | None) -> str:
    """A difference of metrics as text, with its sign."""
    if value is None or math.isnan(value):
        return "–"
    return ("−" if value < 0 else "+") + number(metric, abs(value))
