"""The base class of evaluators: an evaluator config, bound to a run, that yields metrics."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

from mmjax.data.class_names import label_map, mapped
from mmjax.data.sources.renumbered import renumbered
from mmjax.evals.outputs import embed_images
from mmjax.evals.zero_shot import Predictions, places
from mmjax.run.evaluation import Runner
from mmjax.system import Variables

# Incremented when a metric's definition changes, so that results of two definitions are told apart.
# 2: `cider` is what `cider_d` was; captions are tokenized as by Stanford's tokenizer 3.4.1.
METRIC_VERSION = 2

Results = Iterator[tuple[str, float]]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
    """A source and its transforms. A subclass has a `kind`, its name in a config."""

    kind: ClassVar[str]
    labeled: ClassVar[bool] = False  # its transform must give `label`
    runner: Runner = dataclasses.field(repr=False)
    source: Mapping[str, Any]
    transform: str

    def settings(self) -> dict[str, Any]:
        """The resolved config: kind, every setting, and the version of the metrics."""
        fields = [f.name for f in dataclasses.fields(self) if f.name != "runner"]
        return {"kind": self.kind, "metric_version": METRIC_VERSION} | {
            name: getattr(self, name) for name in fields
        }

    def fingerprint(self) -> str:
        """First 12 digits of the SHA-256 of `settings`: only equal fingerprints are comparable."""
        text = json.dumps(self.settings(), sort_keys=True, default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def check(self) -> dict[str, Any]:
        """Open every source and make a row of the first batch; called before training.

        Returns:
          setting -> source.

        Raises:
          ValueError: a missing source, a transform that does not fit its examples, or a model
            without an output that the evaluator reads.
        """
        size = self.runner.batch_size
        processes = size // len(range(size)[self.runner.rows])
        opened = {}
        for name, value in self.settings().items():
            if name.endswith("source") and value is not None:
                source = opened[name] = self._open(value)
                if name == "source":
                    self._check_source(source)
                    self._check_row(next(self.runner.batches(source, self.transform, processes)))
        return opened

    def _check_source(self, source: Any) -> None:
        """Raise ValueError if the source's classes do not fit what the evaluator needs."""

    def needs(self) -> Mapping[str, Sequence[str]]:
        """The outputs of the model that it reads, and the modalities that each is computed from."""
        return {}

    def _check_row(self, batch: Mapping[str, np.ndarray]) -> None:
        """Raise ValueError if the model, or a row of the first batch, lacks what is needed."""
        if self.labeled and "label" not in batch:
            raise ValueError(
                f"A '{self.kind}' needs labels and its transform gives {', '.join(sorted(batch))}: "
                "end the transform with label."
            )
        for output, modalities in self.needs().items():
            found = self.runner.output_names(batch, modalities)
            if output not in found:
                raise ValueError(
                    f"A '{self.kind}' needs the output '{output}' and this model gives "
                    f"{', '.join(found)}: remove this evaluator, or use one that fits the model."
                )

    def run(self, variables: Variables) -> Results:
        """Yield (name, value)."""
        raise NotImplementedError

    def _open(self, config: Mapping[str, Any]) -> Any:
        return self.runner.open_source(config)

    def _as_trained(self, source: Any) -> Any:
        """The source, its labels as indices into the classes that the model was trained on."""
        known = self.runner.class_names
        if known is None or "label" not in self.runner.spec or source.class_names is None:
            return source
        return renumbered(source, known, "the training set")

    def _once(self, variables: Variables, what: str, make: Callable[[], T], **settings: Any) -> T:
        """`make()`, computed once for all evaluators whose source, transform and settings are the
        same, and for the report; see `Kept`.

        Args:
          what: a name for what is made; settings: all else that it depends on; a `source` given
            here takes the place of the evaluator's own.
        """
        settings = {"source": self.source, "transform": self.transform, **settings}
        key = json.dumps([what, settings], sort_keys=True, default=list)
        return self.runner.kept.once(variables, key, make)

    def _batches(self, source: Any) -> Iterator[Mapping[str, np.ndarray]]:
        """This process's rows of the model's input batches."""
        return self.runner.batches(source, self.transform, self.runner.batch_size)

    def _predict(self, variables: Variables, source: Any, **inputs: Any) -> Predictions:
        """What the model's logits `[N, C]` say, of which no more than a batch is kept.

        The source may have a subset of the model's classes, in any order: they are matched by name.

        Raises:
          ValueError: a class of the source that the model does not have.
        """
        to_model = self._label_map(source)

        def reduce(outputs: dict[str, np.ndarray]) -> Mapping[str, np.ndarray]:
            logits, label = outputs["logits"], mapped(outputs["label"], to_model)
            place, best = places(logits, label)
            classes = np.full(len(logits), logits.shape[1])
            return {"place": place, "best": best, "classes": classes}

        found = self._embed(variables, source, ["logits", "label"], reduce=reduce, **inputs)
        names = self._class_names(source, int(found["classes"][0]))
        label = mapped(found["label"], to_model)
        return Predictions(label, found["place"], found["best"], names, found["example_id"])

    def _named_labels(
        self, source: Any, outputs: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, list[str]]:
        """Labels `[N]` as indices into the model's logits `[N, C]`, and the C class names.

        Raises:
          ValueError: as `_predict`.
        """
        label = mapped(outputs["label"], self._label_map(source))
        return label, self._class_names(source, outputs["logits"].shape[1])

    def _class_names(self, source: Any, classes: int) -> list[str]:
        known = self.runner.class_names or getattr(source, "class_names", None) or ()
        return [*known, *(str(i) for i in range(len(known), classes))][:classes]

    def _label_map(self, source: Any) -> np.ndarray | None:
        own = getattr(source, "class_names", None)
        return label_map(own, self.runner.class_names, "the source", "the training set")

    def _embed(
        self,
        variables: Variables,
        source: Any,
        need: Sequence[str],
        reduce: Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]] = dict,
        **inputs: Any,
    ) -> dict[str, np.ndarray]:
        """See `embed_images`; without the examples whose modalities are missing."""

        def checked(outputs: dict[str, np.ndarray]) -> Mapping[str, np.ndarray]:
            missing = [name for name in need if name not in outputs]  # perhaps the source's `label`
            if missing:
                raise ValueError(
                    f"{type(self).__name__} needs {missing} and the model and source give "
                    f"{sorted(outputs)}: remove this evaluation or change its transform."
                )
            return reduce(outputs)

        outputs = embed_images(
            self.runner, variables, source, self.transform, need, reduce=checked, **inputs
        )
        present = outputs.pop("present")
        if not present.any():
            raise ValueError(
                f"{type(self).__name__} has nothing to evaluate: all {len(source)} examples of its "
                "source are marked as not present."
            )
        return {name: rows[present] for name, rows in outputs.items()}


def left_out(absent: int) -> Results:
    """Yield the number of examples left out because a modality is missing, if there are any."""
    if absent:
        yield "absent", float(absent)
