"""The headline: a run's first metric beside its baselines, with intervals."""

import dataclasses
import html
import math
from collections.abc import Mapping, Sequence

from mmjax.report.markup import scrolled
from mmjax.report.tables import BEFORE, Metrics, lower_is_better, number

THIS_RUN = "this run"
MOST_EVALUATIONS, MOST_BASELINES = 4, 5
# The metrics that stand for an evaluation, and their names: those of the first line whose metrics
# the evaluation has.
HEADLINES: Sequence[Mapping[str, str]] = (
    {
        "text_to_image/recall@1": "Recall@1, text → image",
        "image_to_text/recall@1": "Recall@1, image → text",
    },
    {"top1": "Top-1 accuracy"},
    {"accuracy": "Accuracy"},
    {"ap": "Average precision of boxes"},
    {"cider": "CIDEr"},
    {"wer": "Word error rate"},
    {"map": "Mean average precision"},
    {"psnr": "PSNR of reconstructions, dB"},
    {"bits_per_code": "Bits per image code"},
    {"perplexity": "Perplexity"},
    {"fid_efficientnet_lite0_224bicubic": "Fréchet distance of EfficientNet-Lite0 features"},
    {"loss": "Loss"},
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A value of a model, and the 95 % interval of a fraction of examples; None: unknown."""

    value: float
    interval: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class Group:
    """One metric: model -> evaluation -> entry; the first model is this run."""

    metric: str
    title: str
    models: Mapping[str, Mapping[str, Entry]]


def wilson(fraction: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a fraction of n independent examples.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    z = 1.959964
    center = (fraction + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(fraction * (1 - fraction) / n + z * z / (4 * n * n))
    return max(0.0, center - half), min(1.0, center + half)


def headline(
    results: Mapping[str, Metrics],
    baselines: Mapping[str, Mapping[str, Metrics]],
    examples: Mapping[str, int],
) -> list[Group]:
    """The groups of the first of `HEADLINES` that an evaluation has; by default of any metric.

    Args:
      results: evaluation -> metric -> value; baselines: name -> the same.
      examples: evaluation -> number of its examples; others are shown only if it names none.
    """
    names = [n for n in examples if n in results] or [*results]
    titles = next((t for t in HEADLINES if any(t.keys() <= results[n].keys() for n in names)), {})
    if not titles and names and results[names[0]]:
        first = next(iter(results[names[0]]))
        titles = {first: first.replace("_", " ")}
    shown = [n for n in names if titles.keys() <= results[n].keys()][:MOST_EVALUATIONS]
    found = []
    for metric, title in titles.items():
        models = {}
        for model, values in {THIS_RUN: results, **baselines}.items():
            entries = {
                n: _entry(metric, values[n][metric], results[n], examples.get(n, 0))
                for n in shown
                if metric in values.get(n, {}) and math.isfinite(values[n][metric])
            }
            if entries:
                models[model] = entries
        if THIS_RUN in models:
            found.append(Group(metric, title, _best_first(metric, models)))
    return found


def _best_first(
    metric: str, models: Mapping[str, Mapping[str, Entry]]
) -> dict[str, Mapping[str, Entry]]:
    """This run, then the others by their mean, the best first."""
    sign = 1 if lower_is_better(metric) else -1
    mean = {m: sign * sum(e.value for e in x.values()) / len(x) for m, x in models.items()}
    return {m: models[m] for m in sorted(models, key=lambda m: (m != THIS_RUN, mean[m]))}


def _entry(metric: str, value: float, result: Metrics, examples: int) -> Entry:
    counted = examples - int(result.get("absent", 0))
    is_fraction = "recall@" in metric or metric in ("top1", "top5")
    if not is_fraction or counted <= 0 or not 0 <= value <= 1:
        return Entry(value, None)
    return Entry(value, wilson(value, counted))


def verdict(groups: Sequence[Group]) -> str:
    """One sentence: in how many comparisons the run is ahead of the best baseline; "": in none."""
    ahead, overlap, behind = 0, 0, {}
    for group in groups:
        lower = lower_is_better(group.metric)
        others = {m: e for m, e in group.models.items() if m not in (THIS_RUN, BEFORE)}
        for name, mine in group.models[THIS_RUN].items():
            rivals = {m: e[name] for m, e in others.items() if name in e}
            if not rivals:
                continue
            best = (min if lower else max)(rivals, key=lambda m: rivals[m].value)
            is_ahead = mine.value < rivals[best].value if lower else mine.value > rivals[best].value
            ahead += is_ahead
            if not is_ahead:
                behind[best] = behind.get(best, 0) + 1
            one, other = mine.interval, rivals[best].interval
            if one and other:
                overlap += one[0] <= other[1] and other[0] <= one[1]
    total = ahead + sum(behind.values())
    every = f" in all {total} comparisons" if total > 1 else ""
    if not total:
        return ""
    if not behind:
        said = "Ahead of every baseline" + every
    elif not ahead and len(behind) == 1:
        said = f"Behind {next(iter(behind))}{every}"
    else:
        losses = ", ".join(f"{name} in {count}" for name, count in behind.items())
        said = f"Ahead of every baseline in {ahead} of {total} comparisons; behind {losses}"
    return said + (f"; the intervals overlap in {overlap}." if overlap else ".")


def headline_html(groups: Sequence[Group], examples: Mapping[str, int]) -> str:
    """The verdict, and a table with a bar for each value."""
    if not groups:
        return ""
    columns = list(dict.fromkeys(n for g in groups for n in g.models[THIS_RUN]))
    head = "".join(
        f'<th scope="col">{html.escape(n).replace("_", "_<wbr>")}'
        + (f"<small>{examples[n]:,} examples</small>" if examples.get(n) else "")
        + "</th>"
        for n in columns
    )
    body = "".join(_group(group, columns) for group in groups)
    intervals = any(e.interval for g in groups for m in g.models.values() for e in m.values())
    note = (
        "Intervals: 95 % (Wilson), from the number of test examples; they say nothing about other "
        "seeds."
    )
    table = f'<table class="headline"><thead><tr><td></td>{head}</tr></thead>{body}</table>'
    said = verdict(groups)
    none = '<p class="note">There are no baselines of this evaluation: see config.baselines.</p>'
    return (
        (f'<p class="verdict">{html.escape(said)}</p>' if said else none)
        + scrolled(table, "headline metric of this run and of the baselines")
        + (f'<p class="note last">{note}</p>' if intervals else "")
    )


def _group(group: Group, columns: Sequence[str]) -> str:
    entries = [entry for of_model in group.models.values() for entry in of_model.values()]
    top = max([e.interval[1] if e.interval else e.value for e in entries] + [1e-12])
    percent = ", %" if number(group.metric, 0.5) == "50.0" else ""
    rows = (
        f'<tr><th scope="rowgroup" class="metric" colspan="{len(columns) + 1}">'
        f"{html.escape(group.title)}{percent}</th></tr>"
    )
    best = {n: _best(group, n) for n in columns}
    for model, entries in [*group.models.items()][: MOST_BASELINES + 1]:
        cells = "".join(
            f"<td>{_bar(group.metric, entries.get(n), top, best[n] == model)}</td>" for n in columns
        )
        kind = ' class="mine"' if model == THIS_RUN else ""
        rows += f'<tr{kind}><th scope="row">{html.escape(model)}</th>{cells}</tr>'
    return f"<tbody>{rows}</tbody>"


def _best(group: Group, name: str) -> str:
    values = {m: e[name].value for m, e in group.models.items() if name in e}
    return (min if lower_is_better(group.metric) else max)(values, key=values.get)


def _bar(metric: str, entry: Entry | None, top: float, is_best: bool) -> str:
    if entry is None:
        return "–"
    shown = number(metric, entry.value)
    shown = f"<b>{shown}</b>" if is_best else shown
    bar = f'<i style="width:{100 * max(entry.value, 0) / top:.1f}%"></i>'
    if entry.interval:
        low, high = entry.interval
        shown += f" <small>{number(metric, low)}–{number(metric, high)}</small>"
        bar += f'<u style="left:{100 * low / top:.1f}%;width:{100 * (high - low) / top:.1f}%"></u>'
    return f'{shown}<div class="meter" aria-hidden="true">{bar}</div>'
