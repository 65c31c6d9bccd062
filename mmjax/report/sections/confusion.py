"""Which classes a classifier takes for which others: counts of the pairs that occur."""

import dataclasses
import html
from collections.abc import Sequence

import numpy as np

from mmjax.report import figures
from mmjax.report.evaluated import Evaluated
from mmjax.report.markup import inline_svg, scrolled
from mmjax.report.sections.section import Section

MOST_IN_A_TABLE = 24  # classes
MOST_IN_A_MATRIX = 200  # classes; above it there is neither table nor heat map
LISTED, LISTED_OF_MANY = 12, 30  # confusions


@dataclasses.dataclass(frozen=True)
class Confusion:
    """The pairs of a label and a prediction that occur, at most one for each example.

    Attributes:
      class_names: `[C]`; labels, predictions: `[pairs]`, in ascending order; counts: `[pairs]`.
    """

    class_names: Sequence[str]
    labels: np.ndarray
    predictions: np.ndarray
    counts: np.ndarray

    @property
    def total(self) -> int:
        """Number of examples."""
        return int(self.counts.sum())

    @property
    def right(self) -> int:
        """Number of correct examples."""
        return int(self.counts[self.labels == self.predictions].sum())

    def matrix(self) -> np.ndarray:
        """Counts `[C, C]`: row = label, column = prediction."""
        classes = len(self.class_names)
        matrix = np.zeros((classes, classes), np.int64)
        matrix[self.labels, self.predictions] = self.counts
        return matrix

    def mistakes(self, most: int) -> list[tuple[str, str, int]]:
        """(label, prediction, count) of the most frequent wrong pairs."""
        wrong = np.flatnonzero(self.labels != self.predictions)
        order = wrong[np.argsort(-self.counts[wrong], kind="stable")][:most]
        names = self.class_names
        return [
            (names[self.labels[i]], names[self.predictions[i]], int(self.counts[i])) for i in order
        ]


def count_pairs(
    labels: np.ndarray, predictions: np.ndarray, class_names: Sequence[str]
) -> Confusion:
    """The confusion of labels `[N]` and predictions `[N]`, in memory linear in N."""
    classes = len(class_names)
    both = np.asarray(labels, np.int64) * classes + np.asarray(predictions, np.int64)
    pairs, counts = np.unique(both, return_counts=True)
    return Confusion(class_names, pairs // classes, pairs % classes, counts)


def _collect(evaluated: Evaluated) -> Confusion | None:
    found = evaluated.predictions
    return None if found is None else count_pairs(found.labels, found.best, found.class_names)


def _html(data: Confusion, seed: int) -> str:
    classes = len(data.class_names)
    note = f"{data.right} of {data.total} correct ({100 * data.right / max(1, data.total):.1f} %)"
    if classes > MOST_IN_A_MATRIX:
        predicted = len(np.unique(data.predictions))
        note += (
            f", {classes:,} classes, of which {len(np.unique(data.labels)):,} occur and "
            f"{predicted:,} are predicted. The most frequent confusions:"
        )
        return f'<p class="note">{note}</p>{_mistakes(data, LISTED_OF_MANY)}'
    note += ". Rows are the true classes; cells are percentages of their row."
    if classes > MOST_IN_A_TABLE:
        drawn = inline_svg(figures.confusion(data.matrix()), "confusion matrix")
        shown = f"<figure>{drawn}</figure>"
    else:
        shown = _matrix(data)
    return f'<p class="note">{note}</p><div class="side">{shown}{_mistakes(data, LISTED)}</div>'


def _matrix(data: Confusion) -> str:
    head = "".join(
        f'<th scope="col" class="tilt"><span>{html.escape(n)}</span></th>' for n in data.class_names
    )
    body = ""
    for i, (name, row) in enumerate(zip(data.class_names, data.matrix())):
        count = int(row.sum())
        cells = ""
        for j, value in enumerate(row):
            fraction = value / max(1, count)
            kind = ("same " if i == j else "") + ("dark" if fraction > 0.6 else "")
            shown = f"{100 * fraction:.0f}" if value else ""
            about = f"{value} of {count} {name}: {data.class_names[j]}"
            cells += (
                f'<td class="{kind}" style="--of:{100 * fraction:.0f}%" '
                f'title="{html.escape(about)}">{shown}</td>'
            )
        head_cell = f'<th scope="row">{html.escape(name)}<small>{count}</small></th>'
        body += f"<tr>{head_cell}{cells}</tr>"
    table = (
        '<table class="matrix"><caption>Percent of each true class by predicted class</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>"
    )
    return scrolled(table, "confusion matrix")


def _mistakes(data: Confusion, most: int) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(true)}</td><td>{html.escape(predicted)}</td>"
        f'<td class="number">{count}</td></tr>'
        for true, predicted, count in data.mistakes(most)
    )
    if not rows:
        return ""
    return (
        '<table class="mistakes"><caption>Most frequent confusions</caption><thead><tr>'
        '<th scope="col">true</th><th scope="col">predicted</th>'
        f'<th scope="col" class="number">count</th></tr></thead><tbody>{rows}</tbody></table>'
    )


SECTION = Section("Confusion", _collect, _html)
