"""The calibration of a zero-shot classifier in a file: what it was fitted on, and its use."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmjax import storage
from mmjax.data import text_file
from mmjax.evals.metrics.calibration import log_softmax
from mmjax.evals.metrics.uncertainty import fit


@dataclasses.dataclass(frozen=True)
class LabelCalibration:
    """A temperature and a threshold, of a model with its labels and templates.

    Attributes:
      temperature: the probabilities are softmax(logits / temperature) over the labels, whatever
        the model's loss: one of the labels is right.
      threshold: a prediction of less probability is not to be trusted.
      coverage: the fraction of the `examples` that it was fitted on with that much or more.
      model: the model's fingerprint.
    """

    temperature: float
    threshold: float
    coverage: float
    examples: int
    model: str
    labels: tuple[str, ...]
    templates: tuple[str, ...]

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities `[N, C]` from the model's logits `[N, C]`."""
        return np.exp(log_softmax(np.asarray(logits, np.float64) / self.temperature))

    def check(self, model: str, labels: Sequence[str], templates: Sequence[str]) -> None:
        """Raise ValueError if it was fitted with another model, other labels or templates."""
        given = {"model": model, "labels": tuple(labels), "templates": tuple(templates)}
        for name, value in given.items():
            own = getattr(self, name)
            if own != value:
                raise ValueError(
                    f"The calibration was fitted with the {name} {_shown(own)} and is used with "
                    f"{_shown(value)}: fit one with --fit for these."
                )

    def save(self, path: str | Path) -> None:
        """Write the file."""
        storage.write(path, json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def _shown(value: str | Sequence[str]) -> str:
    text = value if isinstance(value, str) else ", ".join(value)
    return repr(text if len(text) < 80 else f"{text[:77]}...")


def folder_labels(paths: Sequence[Path], labels: Sequence[str]) -> np.ndarray:
    """The label's number `[N]` of each image, whose folder is named after it.

    Raises:
      ValueError: a folder that is none of the labels.
    """
    place = {name: i for i, name in enumerate(labels)}
    other = next((path for path in paths if path.parent.name not in place), None)
    if other is not None:
        raise ValueError(
            f"{other} is in the folder '{other.parent.name}', which is none of the labels: --fit "
            "takes images in folders named after their labels."
        )
    return np.asarray([place[path.parent.name] for path in paths], np.int64)


def fit_to_folders(
    logits: np.ndarray, paths: Sequence[Path], coverage: float, **about: str | Sequence[str]
) -> LabelCalibration:
    """The calibration of logits `[N, C]` of images whose folders are named after their labels.

    Args:
      about: `model`, `labels` and `templates` of the classifier.

    Raises:
      ValueError: a folder that is none of the labels, or a coverage outside (0, 1].
    """
    labels = folder_labels(paths, about["labels"])
    temperature, threshold, coverage = fit(np.asarray(logits, np.float64), labels, coverage)
    about = {k: v if isinstance(v, str) else tuple(v) for k, v in about.items()}
    return LabelCalibration(temperature, threshold, coverage, len(paths), **about)


def load(path: str | Path) -> LabelCalibration:
    """The calibration that `save` wrote.

    Raises:
      ValueError: no such file, or another one.
    """
    if not Path(path).is_file():
        raise ValueError(f"There is no calibration '{path}': write it with --fit={path}.")
    try:
        found = text_file.parse_json(Path(path).read_bytes())
        numbers = [float(found[k]) for k in ("temperature", "threshold", "coverage")]
        texts = [tuple(str(x) for x in found[k]) for k in ("labels", "templates")]
        if not (0 < numbers[0] < float("inf") and 0 <= numbers[1] <= 1):
            raise ValueError("its temperature or its threshold is out of range")
        return LabelCalibration(*numbers, int(found["examples"]), str(found["model"]), *texts)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        why = text_file.what_is_wrong(error)
        raise ValueError(f"'{path}' was not written by --fit: {why}.") from None
