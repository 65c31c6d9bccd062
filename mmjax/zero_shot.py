"""Classify images into given labels without training (zero-shot classification).

    python -m mmjax.zero_shot photos/ cat.jpg --labels="cat,dog,a red bus"
    python -m mmjax.zero_shot photos/ --model=MODEL --labels=labels.txt --templates photo --json

Labels are separated by commas, or in a file with one label per line. Templates are a preset of
mmjax/data/transforms/captions.py or prompts with {} for the label; their embeddings are averaged.
The default model is for photographs; it is built at first use.

    python -m mmjax.zero_shot known/ --labels="cat,dog" --fit=calibration.json --coverage=0.9
    python -m mmjax.zero_shot photos/ --labels="cat,dog" --calibration=calibration.json --json

--fit reads images in folders named after their labels, and writes a temperature and the confidence
that keeps the given fraction of them. With --calibration the probabilities are those at that
temperature, and an image of less confidence is marked as one to abstain from.

    python -m mmjax.zero_shot photos/ --labels="cat,dog" --model=A --members B C --json

With --members the probabilities are the means over an ensemble of models, and JSON also has how far
these disagree: the standard deviation of each probability, and the mutual information of label and
model in nats, 0 where all say the same.
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("images", {"nargs": "+", "help": "image files and folders of them"}),
        ("--model", {"help": "a run's workdir or a published folder [the default model]"}),
        ("--labels", {"required": True, "help": '"cat,dog", or a file with one per line'}),
        ("--templates", {"nargs": "+", "default": ["plain"], "help": "a preset, or prompts"}),
        ("--top", {"type": int, "default": 3, "help": "labels shown per image"}),
        ("--json", {"action": "store_true", "help": "print one JSON object per line"}),
        ("--fit", {"help": "file of a calibration, fitted to the images' folders, to write"}),
        ("--coverage", {"type": float, "default": 0.8, "help": "of --fit: fraction answered"}),
        ("--calibration", {"help": "file that --fit has written"}),
        ("--members", {"nargs": "+", "default": [], "help": "further models of an ensemble"}),
    )

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data import image_files, text_file
from mmjax.data.transforms.captions import TEMPLATES, get_templates
from mmjax.embedder import Embedder, open_embedder
from mmjax.evals.metrics.calibration import log_softmax
from mmjax.evals.metrics.ensemble import ensemble
from mmjax.evals.zero_shot import classifier_weights
from mmjax.photos.default import named_or_default
from mmjax.process.printable import printable
from mmjax.process.progress import Progress
from mmjax.workdir import jsonl
from mmjax.zero_shot_calibration import LabelCalibration, fit_to_folders, folder_labels
from mmjax.zero_shot_calibration import load as load_calibration


def read_labels(given: str) -> list[str]:
    """The labels of a comma-separated list, or of a file with one per line.

    Raises:
      ValueError: there is none, the file is missing or not UTF-8.
    """
    is_file = len(given) < 4096 and Path(given).is_file()
    if not is_file and Path(given).suffix in (".txt", ".csv", ".tsv", ".json", ".jsonl"):
        raise ValueError(f"There is no file of labels '{given}'.")
    parts = text_file.lines(text_file.read(given)) if is_file else given.split(",")
    parts = [part.strip() for part in parts]
    labels = list(dict.fromkeys(filter(None, parts)))
    if labels and len(labels) < len(parts):
        empty = parts.count("")
        repeated = len(parts) - empty - len(labels)
        print(f"warning: left out {repeated} repeated and {empty} empty labels", file=sys.stderr)
    if not labels:
        raise ValueError(
            f"The labels '{given}' are empty: write them as \"cat,dog\", or name a file with one "
            "per line."
        )
    return labels


def read_templates(given: Sequence[str]) -> tuple[str, ...]:
    """The templates of a preset, or the given ones.

    Raises:
      ValueError: neither a preset nor prompts with one {} each.
    """
    return get_templates(given[0] if len(given) == 1 and given[0] in TEMPLATES else tuple(given))


def classify(
    embedder: Embedder, weights: np.ndarray, paths: Sequence[Path]
) -> Iterator[tuple[Path, np.ndarray | ValueError]]:
    """Each path, in order, with its labels' cosines `[C]`, or why it cannot be read."""
    batch: list[tuple[Path, np.ndarray | ValueError]] = []

    def flush() -> Iterator[tuple[Path, np.ndarray | ValueError]]:
        good = [image for _, image in batch if not isinstance(image, ValueError)]
        embed = embedder.images(good) if good else np.empty((0, weights.shape[1]), np.float32)
        rows = iter(embed @ weights.T)
        for path, image in batch:
            yield path, image if isinstance(image, ValueError) else next(rows)
        batch.clear()

    for read in image_files.stream(lambda path: embedder.prepare(path.read_bytes()), paths):
        batch.append(read)
        if len(batch) == embedder.sizes[-1]:
            yield from flush()
    yield from flush()


def zero_shot(
    model: str | Path, labels: Sequence[str], paths: Sequence[Path], templates: Sequence[str]
) -> Iterator[tuple[Path, np.ndarray | ValueError]]:
    """Each image file, in order, with its labels' probabilities `[C]`, or why it cannot be read.

    Args:
      model: a run's workdir or a published folder; templates: prompts with {} for the label.

    Raises:
      ValueError: a model that does not embed both images and texts.
    """
    embedder = open_embedder(model, sizes=(min(64, len(paths)),))
    weights = classifier_weights(embedder.texts, labels, templates)
    for path, found in classify(embedder, weights, paths):
        yield path, found if isinstance(found, ValueError) else embedder.probabilities(found)


def classify_together(
    embedders: Sequence[Embedder], weights: Sequence[np.ndarray], paths: Sequence[Path]
) -> Iterator[tuple[Path, list[np.ndarray] | ValueError]]:
    """Each path with its labels' cosines `[C]` of every model, or why it cannot be read."""
    for found in zip(*(classify(e, w, paths) for e, w in zip(embedders, weights))):
        fault = next((x for _, x in found if isinstance(x, ValueError)), None)
        yield found[0][0], [x for _, x in found] if fault is None else fault


def check_different(models: Sequence[str | Path], embedders: Sequence[Embedder]) -> None:
    """Raise ValueError for a model that is twice in an ensemble, also under two names."""
    known: dict[str, str | Path] = {}
    for model, embedder in zip(models, embedders):
        same = known.setdefault(embedder.fingerprint, model)
        if same is not model:
            raise ValueError(
                f"'{same}' and '{model}' are the same model: give each member of the ensemble "
                "once, or its part of the mean would be double."
            )


def best(labels: Sequence[str], probs: np.ndarray, top: int) -> list[tuple[str, float]]:
    """The most probable labels and their probabilities."""
    return [(labels[i], float(probs[i])) for i in np.argsort(-probs, kind="stable")[:top]]


def json_row(
    labels: Sequence[str], probs: np.ndarray, top: int, **more: np.ndarray | None
) -> list[dict[str, Any]]:
    """The labels of a JSON row, the most probable ones first, with `more` of each label."""
    shown = [{"label": n, "share": p} for n, p in best(labels, probs, top)]
    for name, values in more.items():
        if values is not None:
            of = dict(zip(labels, values.tolist()))
            shown = [{**row, name: of[row["label"]]} for row in shown]
    return shown


def agreement(logits: np.ndarray) -> float:
    """The mutual information of label and model, in nats, of logits `[M, C]`: one label is right,
    whatever the models' losses."""
    return float(ensemble(np.exp(log_softmax(logits))[:, None]).mutual_information[0])


class Printer:
    """Prints a row for each image as it is classified: JSON lines, or a table."""

    def __init__(
        self,
        labels: Sequence[str],
        paths: Sequence[Path],
        calibration: LabelCalibration | None,
    ):
        self._labels, self._calibration = labels, calibration
        self._width, self._wide = max(len(printable(p)) for p in paths), max(map(len, labels))
        if not ARGS.json:
            print(f"{'image':{self._width}}  {'label':{self._wide}}  probability")

    def row(self, path: Path, logits: np.ndarray, every: np.ndarray) -> None:
        """Print an image's labels, by the logits and probabilities `[M, C]` of the models."""
        calibrated, abstain, together = None, False, len(every) > 1
        probs = every.mean(axis=0)
        if self._calibration is not None:
            calibrated = self._calibration.probabilities(logits)[0]
            abstain = bool(calibrated.max() < self._calibration.threshold)
        if ARGS.json:
            more = {"calibrated": calibrated, "deviation": every.std(axis=0) if together else None}
            row = {"path": str(path), "labels": json_row(self._labels, probs, ARGS.top, **more)}
            if together:
                row["mutual_information"] = agreement(logits)
            if calibrated is not None:
                row |= {"abstain": abstain, "coverage": self._calibration.coverage}
            print(jsonl.line(row), flush=True)
            return
        shown = best(self._labels, probs if calibrated is None else calibrated, ARGS.top)
        for n, (label, p) in enumerate(shown):
            name = "" if n else printable(path)
            doubt = "  not to be trusted" if abstain and not n else ""
            print(f"{name:{self._width}}  {label:{self._wide}}  {p:5.3f}{doubt}", flush=True)

    def fault(self, path: Path, fault: ValueError) -> None:
        """Print why an image cannot be read, in JSON; a table names these at its end."""
        if ARGS.json:
            print(jsonl.line({"path": str(path), "error": str(fault)}))


def main() -> None:
    """The command."""
    labels, templates = read_labels(ARGS.labels), read_templates(ARGS.templates)
    if ARGS.top < 1:
        raise ValueError(f"--top is {ARGS.top}: use 1 or more.")
    if ARGS.fit and ARGS.calibration:
        raise ValueError("--fit writes a calibration and --calibration reads one: give one.")
    if ARGS.members and (ARGS.fit or ARGS.calibration):
        raise ValueError("A calibration is of one model: give it without --members.")
    calibration = load_calibration(ARGS.calibration) if ARGS.calibration else None
    paths = image_files.find(ARGS.images)
    if ARGS.fit:  # before all images are read
        if not 0 < ARGS.coverage <= 1:
            raise ValueError(f"--coverage is {ARGS.coverage}: use one above 0 and up to 1.")
        folder_labels(paths, labels)
    models = [named_or_default(model) for model in (ARGS.model, *ARGS.members)]
    embedders = [open_embedder(model, sizes=(min(64, len(paths)),)) for model in models]
    if ARGS.members:
        check_different(models, embedders)
    about = {"labels": labels, "templates": templates}
    if ARGS.fit or calibration:
        about["model"] = embedders[0].fingerprint
    if calibration is not None:
        calibration.check(**about)
    weights = [classifier_weights(e.texts, labels, templates) for e in embedders]
    printer = None if ARGS.fit else Printer(labels, paths, calibration)
    faults, found = [], []
    # On a terminal the rows show the progress, and a progress line would interleave with them.
    shown = sys.stdout.isatty() and not ARGS.fit
    quiet = contextlib.nullcontext() if shown else Progress("Images", len(paths))
    with quiet as bar:
        for path, every in classify_together(embedders, weights, paths):
            if isinstance(every, ValueError):
                faults.append((path, every))
                if printer:
                    printer.fault(path, every)
            else:
                logits = np.stack([e.logit_scale * x for e, x in zip(embedders, every)])
                if printer:
                    probs = [e.probabilities(x) for e, x in zip(embedders, every)]
                    printer.row(path, logits, np.stack(probs))
                else:
                    found.append((path, logits[0]))
            if bar is not None:
                bar.advance()
    if faults and not (ARGS.json and printer):
        print(f"{len(faults)} of {len(paths)} images cannot be read:", file=sys.stderr)
        for path, fault in faults:
            print(printable(f"  {path}: {fault}"), file=sys.stderr)
    if len(faults) == len(paths):
        raise ValueError(f"None of the {len(paths)} images can be read: see above.")
    if ARGS.fit:
        files, logits = zip(*found)
        fitted = fit_to_folders(np.stack(logits), files, ARGS.coverage, **about)
        fitted.save(ARGS.fit)
        print(
            f"{ARGS.fit}: temperature {fitted.temperature:.3g}, threshold {fitted.threshold:.3f} "
            f"for {100 * fitted.coverage:g} % of {fitted.examples} images"
        )


if __name__ == "__main__":
    command.run(main)
